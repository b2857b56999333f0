"""Which pods take users' requests: the Service of a ModelDeployment."""

from typing import Any

from kedge.desired import names
from kedge.desired.names import Owner

ALL_REVISIONS = "*"
"""In place of a revision's hash: the Service selects the pods of every revision."""


def service(owner: Owner, revision: str) -> dict[str, Any]:
    """Returns the Service that selects the pods of `revision`, or of all for `ALL_REVISIONS`.

    Only the stable revision and the candidate have pods while a step selects all of them.
    """
    selected = None if revision == ALL_REVISIONS else revision
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(owner, owner.name),
        "spec": {
            # An applied map is merged by key: a key that is not named any more is removed, since it is ours.
            "selector": names.selector_labels(owner, selected),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def selected_revision(service: dict[str, Any]) -> str:
    """Returns the revision that a Service of Kedge selects, or `ALL_REVISIONS`."""
    selector = service.get("spec", {}).get("selector") or {}
    revision: str = selector.get(names.REVISION_LABEL, ALL_REVISIONS)
    return revision
