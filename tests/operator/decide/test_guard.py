import pytest
from tests.operator.worlds import World, revision_of, serving, spec

from kedge.api.conditions import ConditionType, Reason
from kedge.desired import routing
from kedge.observe.snapshot import Trouble

ONE, TWO, THREE = revision_of("1"), revision_of("2"), revision_of("3")
GUARD = {"guard": {"durationSeconds": 600, "warmReplicas": 1}}


def guarding(**rollout: object) -> World:
    """Returns a world in which the second version was promoted and is guarded."""
    world = serving(rollout=GUARD | rollout)
    world.declare(spec("2", rollout=GUARD | rollout))
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.phase == "Guard", requests=400)
    world.tick()
    return world


def test_the_previous_revision_stays_warm_while_the_new_one_is_guarded() -> None:
    world = guarding()
    assert world.status.previous_revision == ONE
    assert {revision: view.replicas for revision, view in world.workloads.items()} == {ONE: 1, TWO: 3}
    assert world.selected == TWO
    assert world.condition(ConditionType.READY) == "True"


def test_a_guard_without_failure_ends_and_lets_the_previous_revision_go() -> None:
    world = guarding()
    world.run_until(lambda w: w.status.rollout is None, ticks=150, requests=400, stable_bad=0.005)
    world.tick()
    assert world.told(Reason.GUARD_ENDED)
    assert world.workloads[ONE].replicas == 0
    assert world.status.previous_revision is None
    assert world.condition(ConditionType.READY) == "True"


def test_a_revision_that_turns_bad_after_promotion_is_rolled_back() -> None:
    world = guarding()
    world.run_until(lambda w: w.status.stable_revision == ONE, requests=400, stable_bad=0.2)
    assert world.selected == ONE
    assert world.workloads[ONE].replicas == 3
    assert world.workloads[TWO].replicas == 0
    rejected = world.status.rejected_revisions[-1]
    assert (rejected.revision, rejected.reason) == (TWO, Reason.OBJECTIVE_FAILED)
    assert rejected.message.endswith("after promotion")
    world.tick()
    assert world.condition(ConditionType.ROLLED_BACK) == "True"
    assert world.condition(ConditionType.AVAILABLE) == "True"


def test_good_times_before_it_do_not_hide_a_change() -> None:
    """A test over all requests since promotion would need as many bad ones to outweigh the good."""
    world = guarding()
    for _ in range(30):
        world.serve(requests=100_000)
        world.tick(10)
    before = world.now
    world.run_until(lambda w: w.status.stable_revision == ONE, requests=400, stable_bad=0.2)
    assert world.now - before <= 30


def test_pods_that_die_after_promotion_bring_the_previous_revision_back() -> None:
    world = guarding()
    world.broken[TWO] = None
    killed = Trouble(Reason.OOM_KILLED, "container server needed more memory than its limit", permanent=True)
    world.hurt(TWO, killed)
    world.tick()
    assert world.status.stable_revision == ONE
    assert world.status.rejected_revisions[-1].reason == Reason.OOM_KILLED


def test_another_revision_ends_the_guard_and_begins_its_rollout() -> None:
    world = guarding()
    world.declare(spec("3", rollout=GUARD))
    world.run_until(lambda w: w.status.candidate_revision == THREE)
    assert world.status.previous_revision is None
    world.run_until(lambda w: w.status.stable_revision == THREE, requests=400)
    assert world.status.previous_revision == TWO


def test_declaring_the_previous_revision_again_rolls_it_out_by_steps() -> None:
    world = guarding()
    world.declare(spec("1", rollout=GUARD))
    world.run_until(lambda w: w.status.stable_revision == ONE, requests=400)
    assert not world.status.rejected_revisions


def test_a_guard_that_only_observes_reports_and_stays() -> None:
    world = guarding(enforcement="Observe")
    for _ in range(10):
        world.serve(requests=400, stable_bad=0.5)
        world.tick(10)
    assert world.status.stable_revision == TWO
    assert len(world.told(Reason.WOULD_ROLL_BACK)) == 1


def test_without_a_guard_nothing_stays_warm() -> None:
    world = serving()
    world.declare(spec("2"))
    world.run_until(lambda w: w.status.stable_revision == TWO, requests=400)
    assert world.status.previous_revision is None
    assert world.workloads[ONE].replicas == 0


@pytest.mark.parametrize("phase", ["Preflight", "Step", "Guard"])
def test_a_person_can_take_a_revision_back_in_every_phase(phase: str) -> None:
    world = serving(rollout=GUARD)
    world.declare(spec("2", rollout=GUARD))
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.phase == phase, requests=400)
    world.pull(abort=TWO)
    world.tick()
    assert (world.status.stable_revision, world.selected) == (ONE, ONE)
    assert world.status.rejected_revisions[-1].reason == Reason.ABORTED
    assert world.selected != routing.ALL_REVISIONS
