"""An S3 store: versitygw, which keeps a bucket in a folder. Built from pinned sources when first asked for.

It runs on this machine, or in the cluster.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator

from hack.lab import errors, examples, store
from hack.lab.kubectl import Kubectl
from hack.localcluster import gobuild, paths, progress

ACCESS_KEY = "reader"
SECRET_KEY = "not-a-secret"
START_SECONDS = 30.0
POD = "bucket-store"
MANIFESTS = pathlib.Path(__file__).with_name("bucket-store.yaml")


@dataclasses.dataclass(frozen=True)
class Gateway:
    """A running store."""

    port: int

    @property
    def endpoint(self) -> str:
        """Its address, by a name: to an IP address every client would send the bucket in the path."""
        return f"http://localhost:{self.port}"

    def environment(self) -> dict[str, str]:
        """Returns the variables by which S3 clients find it, and nothing else."""
        return environment(self.endpoint)


def environment(endpoint: str) -> dict[str, str]:
    """Returns the variables of a client of the store at `endpoint`."""
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


def program() -> pathlib.Path:
    """Returns versitygw, which is linked statically."""
    where = paths.discover(os.environ)
    if not gobuild.location(where, "versitygw").is_dir():
        with gobuild.build_files(where):
            gobuild.build(where, progress.Console(where.logs / "versitygw.log"), "versitygw", "about 1 min")
    return gobuild.location(where, "versitygw") / "versitygw"


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Gateway]:
    """Serves the folders in `folder` as buckets on loopback.

    Raises:
        LabError: It does not come up.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [str(program()), f"--port=localhost:{port}", "--quiet", "posix", str(folder)]
    keys = {"ROOT_ACCESS_KEY_ID": ACCESS_KEY, "ROOT_SECRET_ACCESS_KEY": SECRET_KEY}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env={**os.environ, **keys}, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            _wait(process, port)
            yield Gateway(port)
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        time.sleep(0.02)
    raise errors.LabError(f"versitygw did not listen on port {port}")


@dataclasses.dataclass(frozen=True)
class ClusterStore:
    """The store of one namespace of the cluster, with one bucket."""

    kubectl: Kubectl
    bucket: str = "models"

    @property
    def endpoint(self) -> str:
        """Its address, from every namespace."""
        return f"http://{POD}.{self.kubectl.namespace}"

    def open(self) -> None:
        """Creates it and waits until it answers."""
        self.kubectl.apply(*examples.manifests(MANIFESTS))
        self.kubectl.run("wait", "--for=jsonpath={.status.phase}=Running", f"pod/{POD}", "--timeout=60s")
        self._copy(program(), "/data/versitygw")
        self.kubectl.run("wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=60s")
        self._run("mkdir", f"/data/buckets/{self.bucket}")

    def put(self, path: pathlib.Path, key: str) -> store.Artifact:
        """Stores a file, or a package's folder, under a key."""
        target = f"/data/buckets/{self.bucket}/{key}"
        self._run("mkdir", "-p", str(pathlib.PurePosixPath(target).parent))
        self._copy(path, target)
        digested = path / store.MANIFEST if path.is_dir() else path
        return store.Artifact(
            uri=f"s3://{self.bucket}/{key}{'/' if path.is_dir() else ''}",
            sha256=hashlib.sha256(digested.read_bytes()).hexdigest(),
        )

    def _copy(self, path: pathlib.Path, target: str) -> None:
        """Copies under another name first, so that nobody meets half of it."""
        self.kubectl.run("cp", str(path), f"{POD}:{target}.partial", "--retries=3")
        self._run("mv", f"{target}.partial", target)

    def _run(self, *words: str) -> None:
        self.kubectl.run("exec", POD, "--", *words)
