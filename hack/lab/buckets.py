"""An S3 store: versitygw, which keeps a bucket in a folder. Built from pinned sources when first asked for."""

import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator

from hack.lab import errors
from hack.localcluster import gobuild, paths, progress

ACCESS_KEY = "reader"
SECRET_KEY = "not-a-secret"
START_SECONDS = 30.0


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
