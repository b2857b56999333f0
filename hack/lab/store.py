"""A model store in the cluster, and the artifacts that are put into it."""

import dataclasses
import hashlib
import pathlib

from hack.lab import examples
from hack.lab.kubectl import Kubectl

POD = "model-store"
MANIFEST = "kedge.json"
"""The file of a package whose digest is the package's."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An artifact that the store serves."""

    uri: str
    sha256: str

    def model(self) -> dict[str, str]:
        """Returns `spec.model` for it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Store:
    """The store of one namespace."""

    kubectl: Kubectl

    def open(self) -> None:
        """Creates it and waits until it answers."""
        self.kubectl.apply(*examples.manifests(examples.EXAMPLES / "model-store" / "store.yaml"))
        self.kubectl.run("wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=60s")

    def put(self, path: pathlib.Path) -> Artifact:
        """Copies a file or a package into it; the address works from every namespace."""
        self.kubectl.run("cp", str(path), f"{POD}:/models/{path.name}", "--retries=3")
        digested = path / MANIFEST if path.is_dir() else path
        return Artifact(
            uri=f"http://{POD}.{self.kubectl.namespace}/{path.name}{'/' if path.is_dir() else ''}",
            sha256=hashlib.sha256(digested.read_bytes()).hexdigest(),
        )
