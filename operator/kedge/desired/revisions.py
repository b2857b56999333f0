"""Revisions: what defines the pods of a ModelDeployment, remembered immutably.

A revision is told by its hash. Whatever does not change the pods (replicas, objectives, the course of
the rollout) is not part of it, so that changing those starts no rollout.
"""

import dataclasses
import hashlib
import json
from typing import Any

from kedge.api import servers, specs
from kedge.desired import names
from kedge.desired.names import Owner

CANONICAL_VERSION = 1
"""Version of the hashed form. A new one gives every revision a new hash, and so a new rollout: avoid it."""
HASH_LENGTH = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Revision:
    """One immutable revision and what was resolved when it was first declared."""

    hash: str
    model: specs.Model
    server: servers.Server
    image: str
    """The server's image: the declared one, or the operator's default of that day, so that upgrading
    the operator restarts no model."""
    sequence: int = 1
    """Rising number in the order of declaration."""


def revision_hash(spec: specs.ModelDeploymentSpec) -> str:
    """Returns the hash of the declared revision: 10 hexadecimal digits.

    Fields at their defaults are left out of the hashed form, so that a field added to the API later
    does not change the hash of what was declared before.
    """
    canonical = {
        "version": CANONICAL_VERSION,
        "model": _canonical(spec.model),
        "server": _canonical(spec.server),
    }
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def declare(spec: specs.ModelDeploymentSpec, *, default_image: str, sequence: int) -> Revision:
    """Returns the revision that the spec declares."""
    return Revision(
        hash=revision_hash(spec),
        model=spec.model,
        server=spec.server,
        image=spec.server.image or default_image,
        sequence=sequence,
    )


def controller_revision(owner: Owner, revision: Revision) -> dict[str, Any]:
    """Returns the ControllerRevision that remembers the revision."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": names.metadata(owner, names.workload_name(owner, revision.hash), revision.hash),
        "revision": revision.sequence,
        "data": {
            "version": CANONICAL_VERSION,
            "model": _canonical(revision.model),
            "server": _canonical(revision.server),
            "image": revision.image,
        },
    }


def remembered(controller_revision: dict[str, Any]) -> Revision:
    """Returns the revision that a ControllerRevision of Kedge remembers.

    Raises:
        ValueError: The object was not written by a Kedge that this one understands.
    """
    name = controller_revision["metadata"]["name"]
    data = controller_revision.get("data") or {}
    if data.get("version") != CANONICAL_VERSION:
        raise ValueError(f"ControllerRevision {name} has data of version {data.get('version')}")
    return Revision(
        hash=controller_revision["metadata"]["labels"][names.REVISION_LABEL],
        model=specs.Model.model_validate(data["model"]),
        server=servers.Server.model_validate(data["server"]),
        image=data["image"],
        sequence=controller_revision["revision"],
    )


def _canonical(part: specs.Model | servers.Server) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_defaults=True)
