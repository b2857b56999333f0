"""After a rollback: a rejected version stays rejected until the user asks for something else."""

import pytest
from hack.lab import journal
from tests.e2e.worlds import NAME, READY, REJECTED, World

pytestmark = pytest.mark.e2e

WRONG_DIGEST = "5eed" * 16


def test_the_same_manifest_changes_nothing_and_a_fixed_one_rolls_out(world: World) -> None:
    stable = world.serve("v1", replicas=1)
    bad = world.models["v2"].model() | {"sha256": WRONG_DIGEST}
    world.declare(bad, replicas=1)
    world.wait_for(REJECTED)
    rejected = world.wait_for_rest()
    revisions = len(world.kubectl.items("controllerrevisions"))

    world.declare(bad, replicas=1)
    world.settle()

    after = world.model_deployment()
    assert after["metadata"]["resourceVersion"] == rejected["metadata"]["resourceVersion"]
    assert len(world.kubectl.items("controllerrevisions")) == revisions

    users = world.users()
    world.declare("v2", replicas=1)
    fixed = world.wait_for(READY)["stableRevision"]
    counted = users.stop()
    assert fixed != stable
    assert counted.lost == 0, counted.line


def test_going_back_to_the_stable_manifest_clears_the_conditions(world: World) -> None:
    stable = world.serve("v1", replicas=1)
    pods = {pod["metadata"]["uid"] for pod in world.journal.pods(stable)}
    world.declare(world.models["v2"].model() | {"sha256": WRONG_DIGEST}, replicas=1)
    world.wait_for(REJECTED)

    world.declare("v1", replicas=1)
    status = world.wait_for(READY)

    assert "Stalled" not in journal.conditions(status)
    assert status["stableRevision"] == stable
    assert {pod["metadata"]["uid"] for pod in world.journal.pods(stable)} == pods


def test_a_rejected_version_that_is_declared_again_later_is_not_tried_again(world: World) -> None:
    stable = world.serve("v1", replicas=1)
    bad = world.models["v2"].model() | {"sha256": WRONG_DIGEST}
    world.declare(bad, replicas=1)
    world.wait_for(REJECTED)
    world.declare("v1", replicas=1)
    world.wait_for(READY)
    seen = len(world.journal.statuses)

    world.declare(bad, replicas=1)
    status = world.wait_for(REJECTED)

    later = [status for _, name, status in world.journal.statuses[seen:] if name == NAME]
    assert not any(status.get("candidateRevision") for status in later)
    assert (status["stableRevision"], len(status["rejectedRevisions"])) == (stable, 1)
