"""The release that runs on the cluster: that it is ready, and what its account may not do."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.e2e


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def release() -> dict[str, str]:
    """Returns the name and namespace of the release of this chart."""
    listed = run("helm", "list", "--all-namespaces", "--output=json")
    assert listed.returncode == 0, listed.stderr
    found: list[dict[str, str]] = [entry for entry in json.loads(listed.stdout) if entry["chart"].startswith("kedge-")]
    assert found, "Kedge is not installed on this cluster"
    return found[0]


def test_the_release_passes_its_own_test(release: dict[str, str]) -> None:
    tested = run("helm", "test", release["name"], "--namespace", release["namespace"], "--timeout=90s")

    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "secrets"),
        ("patch", "modeldeployments.kedge.dev"),
        ("update", "modeldeployments.kedge.dev"),
        ("delete", "modeldeployments.kedge.dev"),
        ("delete", "pods"),
        ("create", "pods/exec"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("list", "nodes"),
    ],
)
def test_the_operator_may_not(release: dict[str, str], verb: str, resource: str) -> None:
    name, namespace = release["name"], release["namespace"]

    asked = run(
        "kubectl", "auth", "can-i", verb, resource, "--namespace", namespace,
        f"--as=system:serviceaccount:{namespace}:{name}",
    )  # fmt: skip

    assert asked.stdout.strip() == "no", asked.stderr


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("list", "modeldeployments.kedge.dev"), ("patch", "deployments.apps"), ("create", "events.events.k8s.io")],
)
def test_the_operator_may(release: dict[str, str], verb: str, resource: str) -> None:
    name, namespace = release["name"], release["namespace"]

    asked = run(
        "kubectl", "auth", "can-i", verb, resource, "--namespace", namespace,
        f"--as=system:serviceaccount:{namespace}:{name}",
    )  # fmt: skip

    assert asked.stdout.strip() == "yes", asked.stderr
