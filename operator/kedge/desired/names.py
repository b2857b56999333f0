"""Names and labels of the objects that Kedge owns."""

import dataclasses

from kedge.api import schemas

ObjectDict = dict[str, object]
"""A Kubernetes object in its JSON form."""

MODEL_DEPLOYMENT_LABEL = f"{schemas.GROUP}/model-deployment"
REVISION_LABEL = f"{schemas.GROUP}/revision"
OUTCOME_LABEL = f"{schemas.GROUP}/outcome"
"""On a RolloutRecord that is finished."""
FIELD_MANAGER = "kedge"
SERVER_CONTAINER = "server"
FETCH_CONTAINER = "fetch-model"
HTTP_PORT = 8080


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The ModelDeployment that owns the children."""

    name: str
    namespace: str
    uid: str

    def reference(self) -> dict[str, object]:
        """Returns the ownerReference by which the garbage collector removes the children with their owner."""
        return {
            "apiVersion": schemas.API_VERSION,
            "kind": schemas.KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def workload_name(owner: Owner, revision: str) -> str:
    """Returns the name of a revision's Deployment and ControllerRevision."""
    return f"{owner.name}-{revision}"


def selector_labels(owner: Owner, revision: str | None = None) -> dict[str, str]:
    """Returns the labels that select the pods of one revision, or of all when it is None."""
    labels = {MODEL_DEPLOYMENT_LABEL: owner.name}
    if revision is not None:
        labels[REVISION_LABEL] = revision
    return labels


def selector(owner: Owner) -> str:
    """Returns the selector of all pods as text, for the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in selector_labels(owner).items())


def selected_owner(selector: str) -> str:
    """Returns the name of the ModelDeployment whose pods this selector selects."""
    return selector.partition("=")[2]


def record_name(owner: Owner, revision: str, started_at: str) -> str:
    """Returns the name of the RolloutRecord of a revision's rollout or guard that began at this RFC 3339 time.

    To the millisecond, for a revision may be declared, taken back and declared again within a second. It has at
    most 69 characters: more than a label's value, which a record's name need not be, and far fewer than 253.
    """
    digits = "".join(character for character in started_at if character.isdigit())
    return f"{owner.name}-{revision}-{digits[:17]}"


def labels(owner: Owner, revision: str | None = None) -> dict[str, str]:
    """Returns all labels of a child."""
    recommended = {
        "app.kubernetes.io/name": "kedge-model",
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/part-of": owner.name,
        "app.kubernetes.io/managed-by": "kedge",
    }
    if revision is not None:
        recommended["app.kubernetes.io/version"] = revision
    return recommended | selector_labels(owner, revision)


def metadata(owner: Owner, name: str, revision: str | None = None) -> dict[str, object]:
    """Returns the metadata of a child."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels(owner, revision),
        "ownerReferences": [owner.reference()],
    }
