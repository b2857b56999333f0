import dataclasses
from typing import Any

import pytest
from tests.operator import worlds
from tests.operator.worlds import World, in_step, revision_of, serving, spec

from kedge.api.conditions import ConditionType, Reason
from kedge.desired import routing
from kedge.observe.snapshot import Trouble

ONE, TWO, THREE = revision_of("1"), revision_of("2"), revision_of("3")


def rolled_back(world: World) -> bool:
    return world.condition(ConditionType.ROLLED_BACK) == "True"


def promoted(world: World) -> bool:
    return world.status.stable_revision == TWO


def test_the_first_revision_serves_as_soon_as_a_pod_is_ready() -> None:
    world = World()
    world.run_until(lambda w: w.status.stable_revision is not None)
    assert world.status.stable_revision == ONE
    assert world.selected == ONE
    assert world.told(Reason.PROMOTED)


def test_a_new_object_is_never_ready_before_its_pods_are() -> None:
    world = World()
    world.broken[ONE] = None
    for _ in range(5):
        world.tick()
        assert world.condition(ConditionType.READY) == "False"
        assert world.condition(ConditionType.RECONCILING) == "True"


def test_a_good_candidate_goes_through_its_steps_and_is_promoted() -> None:
    world = serving()
    world.declare(spec("2"))
    weights = []
    for _ in range(100):
        world.serve(requests=400)
        world.tick()
        if world.status.rollout:
            weights.append(world.status.rollout.weight_percent)
        if world.condition(ConditionType.READY) == "True" and promoted(world):
            break
    assert list(dict.fromkeys(weights)) == [0, 25, 50]
    assert [event.reason for event in world.events] == [
        Reason.ROLLOUT_STARTED,
        Reason.STEP_STARTED,
        Reason.STEP_PASSED,
        Reason.STEP_STARTED,
        Reason.STEP_PASSED,
        Reason.PROMOTING,
        Reason.PROMOTED,
    ]
    assert world.selected == TWO
    assert {revision: view.replicas for revision, view in world.workloads.items()} == {ONE: 0, TWO: 3}
    assert world.lowest_stable_ready == 3


def test_no_user_reaches_the_candidate_in_preflight() -> None:
    world = serving()
    world.broken[TWO] = None
    world.declare(spec("2"))
    for _ in range(4):
        world.tick()
        assert world.status.rollout is not None
        assert world.status.rollout.phase == "Preflight"
        assert world.selected == ONE


def test_promotion_makes_the_judged_pods_the_stable_ones() -> None:
    world = in_step(0)
    judged = {pod.uid for pod in world.pods.values() if pod.revision == TWO}
    world.run_until(promoted, requests=400)
    assert judged <= {pod.uid for pod in world.pods.values() if pod.revision == TWO}


def test_a_candidate_that_fails_its_objective_is_rolled_back() -> None:
    world = in_step(0)
    world.run_until(rolled_back, requests=400, bad=0.2)
    assert world.status.stable_revision == ONE
    assert world.selected == ONE
    assert world.workloads[TWO].replicas == 0
    assert world.lowest_stable_ready == 3
    rejected = world.status.rejected_revisions[-1]
    assert (rejected.revision, rejected.reason, rejected.objective) == (TWO, Reason.OBJECTIVE_FAILED, "availability")
    assert "availability, " in rejected.message
    assert "objective 1 %" in rejected.message
    assert rejected.message.endswith("at weight 25 %")
    world.tick()
    told = {kind.value: world.condition(kind) for kind in ConditionType}
    assert told == {
        "Ready": "False",
        "Available": "True",
        "Progressing": "False",
        "Degraded": "True",
        "RolledBack": "True",
        "Stalled": "True",
        "Reconciling": None,
    }


def test_the_traffic_is_taken_off_in_the_same_decision_that_rejects() -> None:
    world = in_step(0)
    for _ in range(20):
        world.serve(requests=400, bad=1.0)
        decision = world.tick()
        if decision.status.rejected_revisions:
            assert decision.plan.selected == ONE
            return
        assert decision.plan.selected == routing.ALL_REVISIONS
    raise AssertionError("not rejected")


def test_a_rejected_revision_is_not_tried_again_when_it_is_declared_again() -> None:
    world = in_step(0)
    world.run_until(rolled_back, requests=400, bad=1.0)
    world.tick()
    settled = world.status
    world.declare(spec("2", replicas=4))
    world.declare(spec("2"))
    for _ in range(10):
        world.tick()
        assert world.status.candidate_revision is None
        assert world.selected == ONE
    assert world.status.rejected_revisions == settled.rejected_revisions


def test_nothing_is_written_once_a_rollback_has_settled() -> None:
    world = in_step(0)
    world.run_until(rolled_back, requests=400, bad=1.0)
    world.tick()
    world.tick()
    settled = world.status.to_json()
    for _ in range(5):
        world.tick()
        assert world.status.to_json() == settled


def test_a_fixed_revision_rolls_out_after_a_rollback() -> None:
    world = in_step(0)
    world.run_until(rolled_back, requests=400, bad=1.0)
    world.declare(spec("3"))
    world.run_until(lambda w: w.status.stable_revision == THREE, requests=400)
    world.tick()
    assert world.condition(ConditionType.ROLLED_BACK) == "False"
    assert world.condition(ConditionType.READY) == "True"


def test_declaring_the_stable_revision_again_clears_a_rollback() -> None:
    world = in_step(0)
    world.run_until(rolled_back, requests=400, bad=1.0)
    world.declare(spec("1"))
    world.tick()
    assert world.condition(ConditionType.ROLLED_BACK) == "False"
    assert world.condition(ConditionType.STALLED) is None
    assert world.condition(ConditionType.READY) == "True"


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": 5},
        {
            "objectives": [
                {
                    "name": "latency",
                    "indicator": {"type": "Latency", "thresholdMilliseconds": 50},
                    "targetPercent": "99",
                }
            ]
        },
    ],
)
def test_what_does_not_change_the_pods_starts_no_rollout(changes: dict[str, Any]) -> None:
    world = serving()
    world.declare(spec("1", **changes))
    for _ in range(5):
        world.tick()
        assert world.status.candidate_revision is None


def test_another_revision_in_mid_rollout_replaces_the_candidate() -> None:
    world = in_step(0)
    world.declare(spec("3"))
    world.tick()
    assert world.selected == ONE
    assert world.told(Reason.ROLLOUT_CANCELLED)
    world.run_until(lambda w: w.status.stable_revision == THREE, requests=400)
    assert not world.status.is_rejected(TWO)


def test_declaring_the_stable_revision_in_mid_rollout_cancels_it() -> None:
    world = in_step(1)
    world.declare(spec("1"))
    world.tick()
    world.tick()
    assert world.selected == ONE
    assert world.status.candidate_revision is None
    assert world.condition(ConditionType.READY) == "True"


TROUBLES = [
    (Trouble(Reason.MODEL_DIGEST_MISMATCH, "sha256 is not as declared", permanent=True), Reason.MODEL_DIGEST_MISMATCH),
    (Trouble(Reason.IMAGE_PULL_BACK_OFF, "image none:1 cannot be pulled", permanent=False), Reason.IMAGE_PULL_BACK_OFF),
    (Trouble(Reason.CRASH_LOOP_BACK_OFF, "exit code 1", permanent=True), Reason.CRASH_LOOP_BACK_OFF),
    (Trouble(Reason.OOM_KILLED, "needed more memory", permanent=True), Reason.OOM_KILLED),
    (None, Reason.PROGRESS_DEADLINE_EXCEEDED),
]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLES)
def test_a_candidate_whose_pods_cannot_serve_is_rejected_with_their_reason(
    trouble: Trouble | None, reason: Reason
) -> None:
    world = serving()
    world.broken[TWO] = trouble
    world.declare(spec("2"))
    world.run_until(rolled_back, requests=400)
    assert world.status.rejected_revisions[-1].reason == reason
    assert world.reason() == reason
    assert world.told(reason)
    assert world.told(Reason.ROLLED_BACK)
    assert world.selected == ONE
    assert world.lowest_stable_ready == 3


def test_a_missing_image_may_appear_within_its_grace() -> None:
    world = serving()
    world.broken[TWO] = Trouble(Reason.IMAGE_PULL_BACK_OFF, "not there yet", permanent=False)
    world.declare(spec("2"))
    for _ in range(3):
        world.tick()
    assert not rolled_back(world)
    del world.broken[TWO]
    world.run_until(promoted, requests=400)


def test_a_first_revision_that_cannot_serve_is_told_and_awaited() -> None:
    world = World()
    world.broken[ONE] = Trouble(Reason.MODEL_DIGEST_MISMATCH, "sha256 is not as declared", permanent=True)
    for _ in range(3):
        world.tick()
    assert world.reason() == Reason.MODEL_DIGEST_MISMATCH
    assert world.condition(ConditionType.STALLED) == "True"
    assert len(world.told(Reason.MODEL_DIGEST_MISMATCH)) == 1
    world.declare(spec("2"))
    world.run_until(promoted)


def test_a_step_waits_for_enough_requests() -> None:
    world = in_step(0)
    for _ in range(10):
        world.serve(requests=2)
        world.tick()
    assert world.reason() == Reason.WAITING_FOR_REQUESTS
    assert world.status.rollout is not None
    assert world.status.rollout.step == 0


@pytest.mark.parametrize(
    ("policy", "reached"),
    [
        ("Hold", lambda w: w.condition(ConditionType.STALLED) == "True" and w.reason() == Reason.INSUFFICIENT_DATA),
        ("RollBack", lambda w: rolled_back(w) and w.status.rejected_revisions[-1].reason == Reason.INSUFFICIENT_DATA),
        ("Promote", promoted),
    ],
)
def test_the_declared_policy_says_what_happens_without_data(policy: str, reached: Any) -> None:
    world = in_step(0, rollout={"onInsufficientData": policy})
    world.run_until(reached, ticks=80)


def test_a_step_on_hold_goes_on_when_data_come_at_last() -> None:
    world = in_step(0)
    world.run_until(lambda w: w.reason() == Reason.INSUFFICIENT_DATA)
    world.run_until(promoted, requests=400)


def test_pods_that_cannot_be_measured_are_neither_success_nor_failure() -> None:
    world = in_step(0)
    world.unmeasurable.add(TWO)
    for _ in range(10):
        world.serve(requests=400)
        world.tick()
    assert world.reason() == Reason.METRICS_UNAVAILABLE
    assert world.status.objectives[0].verdict == "ProviderError"
    world.unmeasurable.clear()
    world.run_until(promoted, requests=400)


def test_observe_reports_a_failure_and_rolls_nothing_back() -> None:
    world = in_step(0, rollout={"enforcement": "Observe"})
    world.run_until(promoted, requests=400, bad=0.5)
    assert len(world.told(Reason.WOULD_ROLL_BACK)) == 1
    assert not world.status.rejected_revisions


def test_an_objective_that_only_alerts_never_stops_a_rollout() -> None:
    objectives = [
        {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99", "action": "Alert"}
    ]
    world = in_step(0, objectives=objectives)
    world.run_until(promoted, requests=400, bad=0.5)
    assert len(world.told(Reason.OBJECTIVE_ALERT)) == 1


def test_an_objective_that_holds_keeps_the_step_and_asks_for_a_person() -> None:
    objectives = [
        {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99", "action": "Hold"}
    ]
    world = in_step(0, objectives=objectives)
    for _ in range(30):
        world.serve(requests=400, bad=0.5)
        world.tick()
    assert world.reason() == Reason.OBJECTIVE_ON_HOLD
    assert world.condition(ConditionType.STALLED) == "True"
    assert world.status.rollout is not None
    assert world.status.rollout.step == 0


STABLE_OBJECTIVE = [
    {
        "name": "worse-than-stable",
        "indicator": {"type": "Availability"},
        "compareTo": "Stable",
        "tolerancePercent": "1",
    }
]


def test_what_both_revisions_share_is_not_the_candidates_fault() -> None:
    world = in_step(0, objectives=STABLE_OBJECTIVE)
    world.run_until(promoted, requests=400, bad=0.3, stable_bad=0.3)


def test_a_candidate_worse_than_stable_is_rolled_back() -> None:
    world = in_step(0, objectives=STABLE_OBJECTIVE)
    world.run_until(rolled_back, requests=400, bad=0.3, stable_bad=0.0)
    assert world.status.rejected_revisions[-1].objective == "worse-than-stable"


def test_a_full_weight_step_gives_all_traffic_to_the_candidate_once_it_is_ready() -> None:
    world = serving(rollout={"steps": [{"weightPercent": 100, "minimumSeconds": 10}]})
    world.declare(spec("2", rollout={"steps": [{"weightPercent": 100, "minimumSeconds": 10}]}))
    seen = set()
    for _ in range(30):
        world.serve(requests=400)
        world.tick()
        seen.add(world.selected)
        if world.selected == TWO:
            assert world.snapshot().ready(TWO) == 3
        if promoted(world):
            break
    assert seen == {ONE, TWO}
    assert world.lowest_stable_ready == 3


def test_a_name_of_somebody_else_is_told_and_left_alone() -> None:
    world = World()
    world.conflicts = ("Service churn",)
    world.tick()
    assert world.reason() == Reason.NAME_CONFLICT
    assert "Service churn" in (world.status.message or "")
    assert world.condition(ConditionType.STALLED) == "True"
    world.conflicts = ()
    world.run_until(lambda w: w.condition(ConditionType.READY) == "True")


def test_a_pod_that_dies_after_it_was_ready_rejects_its_revision() -> None:
    world = in_step(0)
    world.broken[TWO] = None
    for uid, pod in world.pods.items():
        if pod.revision == TWO:
            killed = Trouble(Reason.OOM_KILLED, "container server needed more memory than its limit", permanent=True)
            world.pods[uid] = dataclasses.replace(pod, ready=False, restarts=1, trouble=killed)
    world.tick()
    assert rolled_back(world)
    assert world.status.rejected_revisions[-1].reason == Reason.OOM_KILLED


def test_one_restart_may_be_chance() -> None:
    world = in_step(0)
    for uid, pod in world.pods.items():
        if pod.revision == TWO:
            world.pods[uid] = dataclasses.replace(pod, restarts=1)
    world.run_until(promoted, requests=400)


def test_old_revisions_are_forgotten_beyond_the_history_limit() -> None:
    world = serving(rollout={"historyLimit": 2})
    for version in ("2", "3", "4", "5", "6"):
        world.declare(spec(version, rollout={"historyLimit": 2}))
        goal = revision_of(version)
        world.run_until(lambda w, goal=goal: w.status.stable_revision == goal, requests=400)
    for _ in range(3):
        world.tick()
    assert set(world.revisions) == {revision_of(version) for version in ("4", "5", "6")}
    assert set(world.workloads) == set(world.revisions)


def test_a_restart_at_any_moment_changes_no_verdict() -> None:
    """Status is the whole memory: the world hands on nothing else, and what it hands on went through JSON."""
    world = in_step(0)
    twin = in_step(0)
    for _ in range(6):
        for one in (world, twin):
            one.serve(requests=37, bad=0.1)
            one.tick()
    assert world.status.to_json() == twin.status.to_json()


def test_no_step_begins_while_pods_of_a_third_revision_are_there() -> None:
    world = serving()
    world.declare(spec("2"))
    world.tick()
    lingering = dataclasses.replace(next(iter(world.pods.values())), uid="x", name="old-pod", revision=THREE)
    world.pods["x"] = lingering
    world.counters["x"] = worlds.Counters()
    for _ in range(5):
        world.tick()
        assert world.selected == ONE
    assert "old-pod" in (world.status.message or "")
    world.pods["x"] = dataclasses.replace(lingering, terminating=True)
    world.run_until(promoted, requests=400)


def test_a_step_lasts_its_minimum_time() -> None:
    world = in_step(0, rollout={"steps": [{"weightPercent": 25, "minimumSeconds": 60}]})
    began = world.now
    world.run_until(lambda w: w.status.rollout is None or w.status.rollout.phase == "Promotion", requests=4000)
    assert world.now - began >= 60


def test_rejections_are_bounded_by_the_history_limit() -> None:
    world = serving(rollout={"historyLimit": 2})
    for version in ("2", "3", "4"):
        world.declare(spec(version, rollout={"historyLimit": 2}))
        goal = revision_of(version)
        world.run_until(lambda w, goal=goal: w.status.is_rejected(goal), requests=400, bad=1.0)
    assert [one.revision for one in world.status.rejected_revisions] == [THREE, revision_of("4")]


def test_a_full_weight_step_keeps_the_split_until_all_its_pods_are_ready() -> None:
    steps = [{"weightPercent": 25, "minimumSeconds": 5}, {"weightPercent": 100, "minimumSeconds": 5}]
    world = in_step(0, rollout={"steps": steps})
    world.broken[TWO] = None
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.step == 1, requests=400)
    for _ in range(3):
        world.serve(requests=400)
        world.tick()
        assert world.selected == routing.ALL_REVISIONS
    del world.broken[TWO]
    world._let_pods_start()
    world.run_until(lambda w: w.selected == TWO, requests=400)
    world.run_until(promoted, requests=400)


def test_a_failure_stays_one_whatever_comes_after() -> None:
    world = in_step(0, rollout={"enforcement": "Observe", "steps": [{"weightPercent": 25, "minimumSeconds": 60}]})
    world.serve(requests=200, bad=0.2)
    world.tick()
    assert world.status.objectives[0].verdict == "Fail"
    for _ in range(3):
        world.serve(requests=1_000_000)
        world.tick()
        assert world.status.objectives[0].verdict == "Fail"


def test_the_bound_on_false_rollbacks_is_shared_by_the_objectives_that_may_roll_back() -> None:
    def objective(name: str, action: str = "Rollback") -> dict[str, Any]:
        indicator = {"type": "Availability"}
        return {"name": name, "indicator": indicator, "targetPercent": "99", "action": action}

    def polls_until_failure(*objectives: dict[str, Any]) -> int:
        world = in_step(0, objectives=list(objectives), rollout={"steps": [{"weightPercent": 25}]})
        before = world.now
        world.run_until(rolled_back, requests=40, bad=0.2)
        return round(world.now - before)

    alone = polls_until_failure(objective("a"))
    assert polls_until_failure(objective("a"), objective("b", "Alert")) == alone
    assert polls_until_failure(*(objective(f"o{number}") for number in range(16))) > alone


def test_restarts_of_several_pods_are_not_chance() -> None:
    world = in_step(1)
    for uid in [uid for uid, pod in world.pods.items() if pod.revision == TWO][:2]:
        world.pods[uid] = dataclasses.replace(world.pods[uid], restarts=1)
    world.tick()
    assert world.status.rejected_revisions[-1].reason == Reason.CRASH_LOOP_BACK_OFF


LATENCY = [{"name": "latency", "indicator": {"type": "Latency", "thresholdMilliseconds": 50}, "targetPercent": "99"}]


def test_running_pods_keep_their_histogram_edges_and_new_ones_get_todays() -> None:
    world = serving()
    world.declare(spec("1", objectives=LATENCY))
    world.tick()
    assert world.workloads[ONE].latency_edges_milliseconds == ()
    world.declare(spec("2", objectives=LATENCY))
    world.tick()
    assert world.workloads[TWO].latency_edges_milliseconds == (50,)
    world.declare(spec("3", objectives=LATENCY))
    world.tick()
    world.tick()
    assert world.workloads[TWO].replicas == 0
    other = [LATENCY[0] | {"indicator": {"type": "Latency", "thresholdMilliseconds": 70}}]
    world.declare(spec("2", objectives=other))
    world.tick()
    world.tick()
    assert world.workloads[TWO].latency_edges_milliseconds == (70,)


def test_a_step_does_not_pass_while_the_evidence_leans_against_the_candidate() -> None:
    """Five bad requests in 130 are four times the budget, and still too few to reject by."""
    few = {"minimumRequests": 20, "steps": [{"weightPercent": 25, "minimumSeconds": 5}]}
    world = in_step(0, rollout=few)
    world.serve(requests=120, bad=0.17)
    for _ in range(5):
        world.tick()
        assert world.status.objectives[0].verdict == "InsufficientData"
        assert "3.846 % of 130 requests failed, objective 1 %: more" in world.status.objectives[0].message
        assert world.status.candidate_revision == TWO
    world.run_until(promoted, requests=400)


def test_a_step_that_the_evidence_leans_against_rolls_back_once_that_is_no_chance() -> None:
    few = {"minimumRequests": 20, "steps": [{"weightPercent": 25, "minimumSeconds": 5}]}
    world = in_step(0, rollout=few)
    world.run_until(rolled_back, requests=120, bad=0.1)
