"""Where a model's artifact comes from, as volumes and an init container of the pod."""

import dataclasses
import pathlib
import urllib.parse
from typing import Any

from kedge.desired.revisions import Revision

MODEL_VOLUME = "model"
MODEL_DIRECTORY = "/models"


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """How the artifact reaches the server's container."""

    path: str
    """Path of the artifact inside the container."""
    volume: dict[str, Any] | None = None
    """The volume that holds it, without its name."""
    fetched: bool = False
    """Whether an init container fetches it first."""


def of(revision: Revision) -> Source:
    """Returns the source of the revision's artifact; the API server has checked the form of the URI."""
    uri = urllib.parse.urlsplit(revision.model.uri)
    path = uri.path.lstrip("/")
    match uri.scheme:
        case "configmap":
            volume: dict[str, Any] = {"configMap": {"name": uri.netloc, "items": [{"key": path, "path": path}]}}
            return Source(path=f"{MODEL_DIRECTORY}/{path}", volume=volume)
        case "pvc":
            volume = {"persistentVolumeClaim": {"claimName": uri.netloc, "readOnly": True}}
            return Source(path=f"{MODEL_DIRECTORY}/{path}", volume=volume)
        case "file":
            return Source(path=uri.path)
        case _:
            file_name = pathlib.PurePosixPath(uri.path).name
            return Source(path=f"{MODEL_DIRECTORY}/{file_name}", volume={"emptyDir": {}}, fetched=True)


def mount(source: Source, *, read_only: bool) -> list[dict[str, Any]]:
    """Returns the volume mounts of a container that reads or fetches the artifact."""
    if source.volume is None:
        return []
    return [{"name": MODEL_VOLUME, "mountPath": MODEL_DIRECTORY, "readOnly": read_only}]


def fetch_arguments(revision: Revision, source: Source) -> list[str]:
    """Returns the arguments of the init container."""
    digest = ["--sha256", revision.model.sha256] if revision.model.sha256 else []
    return ["fetch", revision.model.uri, *digest, "--out", source.path]


def credentials(revision: Revision) -> dict[str, Any]:
    """Returns what gives the init container the environment of the declared Secret."""
    if revision.model.secret_ref is None:
        return {}
    return {"envFrom": [{"secretRef": {"name": revision.model.secret_ref.name}}]}
