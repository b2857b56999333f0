"""Good versions reach all users, and nobody notices."""

import pytest
from hack.lab import journal
from tests.e2e.worlds import NAME, READY, World, now

pytestmark = pytest.mark.e2e


def test_a_better_version_is_promoted_and_no_request_is_lost(world: World) -> None:
    first = world.serve("v1")
    users = world.users()

    world.declare("v2")
    second = world.wait_for(READY)["stableRevision"]

    users.wait_for_answers(60)
    world.wait_for_no_pods_of(first)
    counted = users.stop()
    assert second != first
    assert (counted.lost, counted.outcome("client_error")) == (0, 0), counted.line
    assert counted.answers(first) + counted.answers(second) == counted.sent
    assert counted.right_percent(second) > counted.right_percent(first)
    assert {"RolloutStarted", "StepStarted", "Promoting", "Promoted"} <= world.event_reasons()
    assert world.selected() == second


def test_the_pods_that_were_judged_become_the_stable_ones(world: World) -> None:
    world.serve("v1")
    users = world.users()

    world.declare("v2")
    judged = world.wait_for_step()["candidateRevision"]
    uids = {pod["metadata"]["uid"] for pod in world.journal.pods(judged)}
    world.wait_for(READY)

    users.stop()
    assert uids
    assert uids <= {pod["metadata"]["uid"] for pod in world.journal.pods(judged)}


def test_replicas_and_objectives_are_changed_without_a_rollout(world: World) -> None:
    stable = world.serve("v1", replicas=1)
    pods = {pod["metadata"]["uid"] for pod in world.journal.pods(stable)}

    stricter = [{"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99.9"}]
    world.declare("v1", replicas=2, objectives=stricter)
    world.wait_for(READY)

    statuses = [status for _, _, status in world.journal.statuses]
    assert {status.get("candidateRevision") for status in statuses} <= {None, stable}
    assert {status.get("stableRevision") for status in statuses} <= {None, stable}
    after = {pod["metadata"]["uid"] for pod in world.journal.pods(stable) if journal.is_ready(pod)}
    assert (len(after), pods <= after) == (2, True)
    assert len(world.kubectl.items("controllerrevisions")) == 1


def test_a_third_version_takes_the_place_of_one_that_is_being_judged(world: World) -> None:
    first = world.serve("v1")
    users = world.users()
    since = now()
    world.declare("forest", rollout_minimumRequests=100_000)
    second = world.wait_for_step()["candidateRevision"]

    world.declare("v2")
    third = world.wait_for(READY)["stableRevision"]

    users.wait_for_answers(40)
    world.wait_for_no_pods_of(second)
    counted = users.stop()
    assert len({first, second, third}) == 3
    assert counted.lost == 0, counted.line
    assert "RolloutCancelled" in world.event_reasons()
    assert world.journal.lowest_ready(first, since=since, until=world.promoted_at(third)) >= 2


def test_kubectl_scale_reaches_the_pods_and_tells_their_number(world: World) -> None:
    stable = world.serve("v1", replicas=1)

    world.kubectl.run("scale", f"modeldeployment/{NAME}", "--replicas=2")
    world.journal.wait(NAME, lambda status: status.get("readyReplicas") == 2, within=60, what="two ready replicas")

    selector = world.model_deployment()["status"]["selector"]
    selected = world.kubectl.items("pods", f"--selector={selector}")
    assert {journal.label(pod) for pod in selected} == {stable}
    assert len(selected) == 2


def test_a_small_model_is_served_from_a_configmap(world: World) -> None:
    artifact = world.models["v1"]
    file = world.models.file("v1")
    world.kubectl.run("create", "configmap", "small-model", f"--from-file=digits.skops={file}")

    world.declare({"uri": "configmap://small-model/digits.skops", "sha256": artifact.sha256})
    world.wait_for(READY)

    counted = world.count_answers(20)
    assert (counted.lost, counted.outcome("ok")) == (0, counted.sent)
