"""What every end-to-end test has at hand: kubectl on the cluster that KUBECONFIG names, and a namespace of its own."""

import os
import pathlib
import secrets
import subprocess
from collections.abc import Callable, Iterator

import pytest

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """Runs `kubectl` with these arguments and returns what it said, also when it failed."""
    if not pathlib.Path(os.environ.get("KUBECONFIG", "")).is_file():
        pytest.fail("KUBECONFIG names no file: run these tests with `python3 -m hack.localcluster exec -- pytest`")

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    """Makes a namespace for one test module and removes it afterwards."""
    stem = request.path.stem.removeprefix("test_").replace("_", "-")
    name = f"{stem}-{secrets.token_hex(3)}"
    created = kubectl("create", "namespace", name)
    assert created.returncode == 0, created.stderr
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
