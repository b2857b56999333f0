"""The operator as a part that can fail, be away, and be looked at."""

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hack.lab import installing
from hack.lab.kubectl import Kubectl
from tests.e2e.worlds import NAME, READY, World, now

pytestmark = pytest.mark.e2e

SELECTOR = "app.kubernetes.io/name=kedge,app.kubernetes.io/component=operator"


@pytest.fixture
def operator() -> Iterator[Kubectl]:
    """Gives kubectl beside the operator, and leaves it ready for the next test."""
    yield installing.operator()
    installing.operator().run("scale", installing.DEPLOYMENT, "--replicas=1")
    installing.operator().run("rollout", "status", installing.DEPLOYMENT, "--timeout=90s")


def pod_of(operator: Kubectl) -> dict[str, Any]:
    (pod,) = [
        pod for pod in operator.items("pods", f"--selector={SELECTOR}") if "deletionTimestamp" not in pod["metadata"]
    ]
    return pod


def deleted(operator: Kubectl) -> None:
    operator.run("delete", "pod", pod_of(operator)["metadata"]["name"], "--wait=false")


def killed(operator: Kubectl) -> None:
    """Ends its process at once, as the kernel does when memory is short: no time to say goodbye."""
    pod = pod_of(operator)
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    docker = [os.environ.get("DOCKER", "docker"), "exec", pod["spec"]["nodeName"]]
    command = [*docker, "ctr", "--namespace=k8s.io", "task", "kill", "--signal=SIGKILL", container]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("end", [deleted, killed])
def test_a_bad_version_is_taken_back_although_the_operator_ends_in_the_middle(
    world: World, operator: Kubectl, end: Callable[[Kubectl], None]
) -> None:
    stable = world.serve("v1")
    users = world.users()
    since = now()

    world.declare("hundred-rows", rollout_minimumRequests=100)
    world.wait_for_step()
    end(operator)

    world.assert_rolled_back(stable, reason="ObjectiveFailed", evidence="requests failed, objective 1 %", since=since)
    counted = users.stop()
    assert counted.stable_answers_last(stable)


def test_a_good_version_is_promoted_although_the_operator_ends_in_the_middle(world: World, operator: Kubectl) -> None:
    world.serve("v1")
    users = world.users()

    world.declare("v2")
    candidate = world.wait_for_step()["candidateRevision"]
    killed(operator)

    assert world.wait_for(READY)["stableRevision"] == candidate
    counted = users.stop()
    assert counted.lost == 0, counted.line
    assert len(world.finished_record(candidate, "Promoted")["journal"]["segments"]) > 1


def test_models_are_served_while_the_operator_is_away(world: World, operator: Kubectl) -> None:
    stable = world.serve("v1")
    operator.run("scale", installing.DEPLOYMENT, "--replicas=0")
    operator.run("wait", "--for=delete", "pod", f"--selector={SELECTOR}", "--timeout=60s")
    users = world.users()

    lost = world.journal.pods(stable)[0]["metadata"]
    world.kubectl.run("delete", "pod", lost["name"], "--wait=false")
    world.wait_for_ready_pods(stable, other_than=lost["uid"])

    users.wait_for_answers(20)
    counted = users.stop()
    assert (counted.lost, counted.answers(stable)) == (0, counted.sent), counted.line


@pytest.mark.parametrize("replicas", [1, 0], ids=["present", "away"])
def test_deleting_a_model_removes_everything_with_the_operator(world: World, operator: Kubectl, replicas: int) -> None:
    world.serve("v1", replicas=1)
    operator.run("scale", installing.DEPLOYMENT, f"--replicas={replicas}")
    if replicas == 0:
        operator.run("wait", "--for=delete", "pod", f"--selector={SELECTOR}", "--timeout=60s")

    world.kubectl.run("delete", "modeldeployment", NAME, "--timeout=30s")

    owned = "deployments,replicasets,pods,services,controllerrevisions,poddisruptionbudgets,rolloutrecords"
    world.kubectl.run("wait", "--for=delete", owned, f"--selector=kedge.dev/model-deployment={NAME}", "--timeout=90s")
    assert world.kubectl.items(owned, f"--selector=kedge.dev/model-deployment={NAME}") == []


def test_probes_and_metrics_answer(world: World, operator: Kubectl) -> None:
    world.serve("v1", replicas=1)
    proxy = f"/api/v1/namespaces/{operator.namespace}/services/kedge:http/proxy"

    for path in ("healthz", "readyz"):
        assert operator.run("get", "--raw", f"{proxy}/{path}").strip() == "ok"
    page = operator.run("get", "--raw", f"{proxy}/metrics")

    lines = page.splitlines()
    assert "kedge_leader 1.0" in lines
    assert any(line.startswith("kedge_model_deployments ") for line in lines)
    assert any(line.startswith('kedge_transitions_total{reason="Promoted"}') for line in lines)
    assert any(line.startswith("kedge_reconcile_duration_seconds_count ") for line in lines)


def test_every_pod_runs_without_privileges(world: World, operator: Kubectl) -> None:
    stable = world.serve("v1", replicas=1)

    for pod in (pod_of(operator), *world.journal.pods(stable)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    world.kubectl.run("label", "namespace", world.kubectl.namespace, "pod-security.kubernetes.io/enforce=restricted")
    name = world.journal.pods(stable)[0]["metadata"]
    world.kubectl.run("delete", "pod", name["name"], "--wait=false")
    world.wait_for_ready_pods(stable, other_than=name["uid"], number=1)
