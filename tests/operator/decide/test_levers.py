from typing import Any

from tests.operator.worlds import World, in_step, revision_of, serving, spec

from kedge.api.conditions import ConditionType, Reason
from kedge.api.levers import Levers

ONE, TWO = revision_of("1"), revision_of("2")
APPROVED_STEP: dict[str, Any] = {
    "steps": [
        {"weightPercent": 25, "minimumSeconds": 10, "approval": "Required"},
        {"weightPercent": 50, "minimumSeconds": 10},
    ]
}


def promoted(world: World) -> bool:
    return world.status.stable_revision == TWO


def rolled_back(world: World) -> bool:
    return world.condition(ConditionType.ROLLED_BACK) == "True"


def test_a_step_with_approval_waits_for_a_person_after_everything_else_passed() -> None:
    world = in_step(0, rollout=APPROVED_STEP)
    world.run_until(lambda w: w.reason() == Reason.WAITING_FOR_APPROVAL, requests=400)
    assert f"kedge.dev/approve={TWO}/1" in (world.status.message or "")
    world.pull(approve=f"{TWO}/1")
    world.run_until(promoted, requests=400)


def test_an_approval_of_something_else_is_no_approval() -> None:
    for approval in (f"{ONE}/1", f"{TWO}/2", TWO, "yes"):
        world = in_step(0, rollout=APPROVED_STEP)
        world.pull(approve=approval)
        for _ in range(10):
            world.serve(requests=400)
            world.tick()
        assert world.reason() == Reason.WAITING_FOR_APPROVAL


def test_a_failure_rolls_back_while_approval_is_awaited() -> None:
    world = in_step(0, rollout=APPROVED_STEP)
    world.run_until(lambda w: w.reason() == Reason.WAITING_FOR_APPROVAL, requests=400)
    world.run_until(rolled_back, requests=400, bad=1.0)


def test_a_pause_holds_the_step_and_failures_still_roll_back() -> None:
    paused = {"paused": True}
    world = in_step(0)
    world.declare(spec("2", rollout=paused))
    for _ in range(10):
        world.serve(requests=400)
        world.tick()
    assert world.reason() == Reason.PAUSED
    world.run_until(rolled_back, requests=4000, bad=1.0)


def test_a_paused_rollout_goes_on_when_the_pause_ends() -> None:
    world = in_step(0)
    world.declare(spec("2", rollout={"paused": True}))
    world.tick()
    world.declare(spec("2"))
    world.run_until(promoted, requests=400)


def test_no_rollout_begins_while_paused() -> None:
    world = serving()
    world.declare(spec("2", rollout={"paused": True}))
    for _ in range(5):
        world.tick()
    assert world.status.candidate_revision is None
    assert world.reason() == Reason.PAUSED
    assert world.condition(ConditionType.READY) == "False"
    world.declare(spec("2"))
    world.run_until(promoted, requests=400)


def test_a_first_revision_starts_even_while_paused() -> None:
    world = World(spec("1", rollout={"paused": True}))
    world.run_until(lambda w: w.condition(ConditionType.READY) == "True")


def test_a_retry_tries_the_rejected_revision_once_more_for_each_token() -> None:
    world = in_step(0)
    world.pull(retry="before")
    world.run_until(rolled_back, requests=400, bad=1.0)
    for _ in range(3):
        world.tick()
    assert world.status.candidate_revision is None
    world.pull(retry="again")
    world.run_until(lambda w: w.status.candidate_revision == TWO)
    assert world.told(Reason.RETRIED)
    world.run_until(rolled_back, requests=400, bad=1.0)
    for _ in range(3):
        world.tick()
    assert world.status.candidate_revision is None
    world.pull(retry="once more")
    world.run_until(promoted, requests=400)
    assert not world.status.rejected_revisions


def test_removing_the_retry_annotation_asks_for_nothing() -> None:
    world = in_step(0)
    world.pull(retry="a")
    world.run_until(rolled_back, requests=400, bad=1.0)
    world.pull(retry="")
    for _ in range(3):
        world.tick()
    assert world.status.candidate_revision is None


def test_an_abort_of_a_revision_that_is_not_rolled_out_does_nothing() -> None:
    world = serving()
    world.pull(abort=ONE)
    world.tick()
    assert world.condition(ConditionType.READY) == "True"
    assert not world.status.rejected_revisions


def test_annotations_are_read_by_their_names_and_with_who_wrote_them() -> None:
    annotations = {"kedge.dev/approve": "r/2", "kedge.dev/abort": "r", "kedge.dev/retry": "t", "other": "x"}
    owned: dict[str, Any] = {"f:metadata": {"f:annotations": {".": {}, "f:kedge.dev/approve": {}}}}
    managers = [
        {"manager": "kedge", "fieldsV1": {"f:status": {}}},
        {"manager": "kubectl-annotate", "fieldsV1": owned},
        {"manager": "no-fields"},
    ]
    read = Levers.read({"annotations": annotations, "managedFields": managers})
    assert read == Levers(approve="r/2", abort="r", retry="t", approved_by="kubectl-annotate")
    assert read.approves("r", 1)
    assert not read.approves("r", 2)
    assert Levers.read({}) == Levers()


def test_proven_needs_enough_requests_to_show_that_the_objective_is_met() -> None:
    world = in_step(0, rollout={"passWhen": "Proven"})
    world.serve(requests=400)
    world.tick(20)
    world.tick()
    assert world.status.objectives[0].verdict == "InsufficientData"
    assert "not proven yet" in world.status.objectives[0].message
    world.run_until(promoted, requests=4000)


def test_bursts_that_stable_shows_too_weaken_the_evidence_against_the_candidate() -> None:
    """The design effect: the same counts are less evidence where whole polls fail together."""
    long = {"steps": [{"weightPercent": 25, "minimumSeconds": 10_000}], "stepDeadlineSeconds": 20_000}

    def polls_until_failure(stable_bad: list[float]) -> int:
        world = in_step(0, rollout=long)
        for poll in range(200):
            world.serve(requests=400, bad=0.04 * (poll >= 24), stable_bad=stable_bad[poll % len(stable_bad)])
            world.tick()
            if world.status.rejected_revisions:
                return poll
        raise AssertionError("not rejected")

    assert polls_until_failure([0.06, 0, 0, 0, 0, 0]) > polls_until_failure([0.01])
