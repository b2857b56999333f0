import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.operator.worlds import World, revision_of, serving, spec

from kedge.api.conditions import ConditionType, Reason
from kedge.api.statuses import Memory, ObjectiveStatus
from kedge.decide import drifts
from kedge.decide.judgements import Case
from kedge.observe.snapshot import Distributions, Histogram, PodView, Snapshot

ONE, TWO = revision_of("1"), revision_of("2")
UNIFORM = [100] * 10
LIKE_IT = [10] * 10
SHIFTED = [0] * 5 + [20] * 5
TILTED = [11, 9] * 5
"""Off the reference by a PSI of 0.01."""
AVAILABILITY = {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99"}


def drift(kind: str = "FeatureDrift", **changes: Any) -> dict[str, Any]:
    return {"name": "drift", "indicator": {"type": kind}, "maximum": "0.2", "action": "Alert"} | changes


def rolling(objective: dict[str, Any], version: str = "2", **changes: Any) -> World:
    """Returns a world in which the second version serves at its first step, with nothing counted yet."""
    declared: dict[str, Any] = {"objectives": [AVAILABILITY, objective]} | changes
    declared["metrics"] = {"intervalSeconds": 5, "driftIntervalSeconds": 10}
    world = serving(**declared)
    world.declare(spec(version, **declared))
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.serving_since is not None)
    return world


def run(world: World, ticks: int = 8, *, requests: int = 600, **rows: Any) -> None:
    """Lets users send rows, in requests of one row each unless told otherwise."""
    counted = {"name": "feature age", "rows": LIKE_IT, "reference": UNIFORM} | rows
    for _ in range(ticks):
        world.count_rows(**counted)
        world.serve(requests=requests)
        world.tick()


def told(world: World, name: str = "drift") -> ObjectiveStatus:
    return next(one for one in world.status.objectives if one.name == name)


def test_rows_like_the_profile_pass_with_their_evidence() -> None:
    world = rolling(drift())
    run(world, ticks=3, requests=300)
    verdict = told(world)
    assert verdict.verdict == "Pass"
    assert (verdict.histogram, verdict.distance) == ("feature age", "0")
    assert float(verdict.distance_threshold or 0) > 0.2
    assert verdict.message.startswith("PSI of feature age is 0 over ")


def test_drift_that_only_alerts_is_told_once_and_stops_nothing() -> None:
    world = rolling(drift())
    run(world, rows=SHIFTED, ticks=30)
    assert len(world.told(Reason.OBJECTIVE_ALERT)) == 1
    assert "PSI of feature age" in world.told(Reason.OBJECTIVE_ALERT)[0]
    assert world.status.stable_revision == TWO


def test_drift_on_hold_keeps_the_step() -> None:
    world = rolling(drift(action="Hold"))
    run(world, rows=SHIFTED, ticks=30)
    assert world.status.candidate_revision == TWO
    assert world.reason() == Reason.OBJECTIVE_ON_HOLD


def test_answers_that_differ_from_stables_in_the_same_period_roll_back() -> None:
    world = rolling(drift("PredictionDrift", compareTo="Stable", action="Rollback"))
    run(world, name="prediction predict", rows=SHIFTED, stable=LIKE_IT, ticks=30)
    assert world.status.stable_revision == ONE
    rejected = world.status.rejected_revisions[-1]
    assert (rejected.revision, rejected.objective) == (TWO, "drift")
    assert "PSI of prediction predict" in rejected.message


def test_inputs_that_both_revisions_see_are_not_the_candidates_fault() -> None:
    world = rolling(drift(compareTo="Stable", action="Rollback"))
    run(world, rows=SHIFTED, stable=SHIFTED, ticks=30)
    assert world.status.stable_revision == TWO
    assert told(world).verdict == "Pass"


def test_what_stable_counted_before_the_rollout_is_no_part_of_the_comparison() -> None:
    declared: dict[str, Any] = {"objectives": [AVAILABILITY, drift(compareTo="Stable", action="Rollback")]}
    world = serving(**declared)
    for _ in range(50):
        world.count_rows("feature age", LIKE_IT, reference=UNIFORM)
    world.declare(spec("2", **declared))
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.serving_since is not None)
    run(world, rows=SHIFTED, stable=SHIFTED, ticks=30)
    assert world.status.stable_revision == TWO


def test_too_few_rows_say_nothing_and_hold_the_step() -> None:
    world = rolling(drift(action="Hold"))
    run(world, rows=[0, 0, 0, 0, 1, 0, 0, 0, 0, 0], ticks=4)
    assert told(world).verdict == "InsufficientData"
    assert "too few rows" in told(world).message
    assert world.status.candidate_revision == TWO


def test_a_distance_above_the_maximum_does_not_pass_while_it_may_be_chance() -> None:
    world = rolling(drift(action="Hold"), rollout={"minimumRequests": 10})
    run(world, rows=[2, 1] * 2 + [1, 0] * 3, ticks=1, requests=80)
    run(world, rows=[2, 1] * 2 + [1, 0] * 3, ticks=2, requests=80)
    verdict = told(world)
    assert float(verdict.distance or 0) > 0.2
    assert verdict.verdict == "InsufficientData"
    assert "more rows must show" in verdict.message


def test_a_look_at_fewer_rows_than_a_step_needs_lets_nothing_pass() -> None:
    world = rolling(drift(action="Hold"), rollout={"minimumRequests": 50})
    run(world, rows=[1] * 10, ticks=3, requests=400)
    assert told(world).verdict == "InsufficientData"
    assert "fewer than 50 rows" in told(world).message
    run(world, rows=[1] * 10, ticks=30, requests=400)
    assert world.status.stable_revision == TWO


def test_a_hundred_rows_in_one_request_say_no_more_than_one() -> None:
    alike, apart = rolling(drift()), rolling(drift())
    run(apart, rows=SHIFTED, ticks=2, requests=300)
    run(alike, rows=SHIFTED, ticks=2, requests=3)
    assert told(apart).verdict == "Fail"
    assert told(alike).verdict == "InsufficientData"


def test_a_feature_that_never_varies_is_no_reason_to_wait() -> None:
    world = rolling(drift())
    run(world, rows=[100, 0, 0], reference=[1000, 0, 0], ticks=4)
    assert told(world).verdict == "Pass"


def test_a_model_without_a_profile_is_told_how_to_get_one() -> None:
    world = rolling(drift(action="Hold"))
    for _ in range(6):
        world.serve(requests=600)
        world.tick()
    assert told(world).verdict == "ProviderError"
    assert "kedge-server package --reference" in told(world).message
    assert world.reason() == Reason.METRICS_UNAVAILABLE


def test_other_bins_than_stables_are_not_compared() -> None:
    world = rolling(drift("PredictionDrift", compareTo="Stable", action="Hold"))
    for _ in range(6):
        for pod in world.pods.values():
            rows = LIKE_IT if pod.revision == ONE else [20] * 5
            world.counters[pod.uid].add_rows("prediction predict", rows, rows)
        world.serve(requests=600)
        world.tick()
    assert told(world).verdict == "ProviderError"
    assert "--bins-of" in told(world).message


LONG = {"steps": [{"weightPercent": 50, "minimumSeconds": 5000}], "stepDeadlineSeconds": 6000}


@pytest.mark.parametrize("version", [ONE, TWO])
def test_a_restarted_process_begins_a_new_comparison_which_finds_what_comes_after(version: str) -> None:
    world = rolling(drift(compareTo="Stable", action="Rollback"), rollout=LONG)
    run(world, ticks=10)
    restarted = next(uid for uid, pod in world.pods.items() if pod.revision == version)
    world.counters[restarted] = type(world.counters[restarted])(started_at="2")
    run(world, ticks=20)
    assert told(world).verdict == "Pass"
    run(world, rows=SHIFTED, stable=LIKE_IT, ticks=60)
    assert world.status.rejected_revisions[-1].objective == "drift"


def test_an_unread_revision_is_told_and_its_rows_are_not_lost() -> None:
    world = rolling(drift(action="Hold"))
    run(world, ticks=2)
    world.unmeasurable.add(TWO)
    run(world, ticks=4)
    assert told(world).verdict == "ProviderError"
    world.unmeasurable.clear()
    run(world, ticks=4)
    assert told(world).verdict == "Pass"


def read_of(processes: dict[str, str], rows: int) -> Distributions:
    histogram = Histogram(tuple("0123456789"), (rows,) * 10, (100,) * 10)
    return Distributions(TWO, processes, rows * 10, {"prediction predict": histogram})


def looked(memory: Memory, read: Distributions, pods: str, *, now: float) -> Memory:
    views = tuple(PodView(uid, uid, TWO, "10.0.0.1", ready=True, terminating=False, created_at=0.0) for uid in pods)
    declared = spec("2", objectives=[drift("PredictionDrift")])
    return drifts.look(Case(declared, memory, Snapshot(pods=views, distributions={TWO: read}), TWO, None), now)


@pytest.mark.parametrize(("pods", "continues"), [("ab", True), ("a", False)])
def test_only_a_pod_that_is_gone_ends_a_comparison(*, pods: str, continues: bool) -> None:
    """One that is there but could not be read makes it wait."""
    both = {"a": "1", "b": "1"}
    before = looked(Memory(), read_of(both, 100), "ab", now=1e9)
    without = looked(before, read_of({"a": "1"}, 50), pods, now=1e9 + 30)
    assert (without.drifts == before.drifts) is continues
    after = looked(without, read_of(both, 200), "ab", now=1e9 + 60)
    rows = after.drifts[0].state["evidence"]["rows"]
    assert rows == (2000 if continues else 1500)


def test_an_older_reading_of_stable_that_comes_late_is_not_looked_at() -> None:
    declared = spec("2", objectives=[drift("PredictionDrift", compareTo="Stable")])

    def look(memory: Memory, candidate: int, stable: int) -> Memory:
        read = {
            revision: dataclasses.replace(read_of({revision: "1"}, rows), revision=revision)
            for revision, rows in ((TWO, candidate), (ONE, stable))
        }
        return drifts.look(Case(declared, memory, Snapshot(distributions=read), TWO, ONE), now=1e9)

    before = look(Memory(), candidate=1, stable=1000)
    late = look(before, candidate=100, stable=500)
    assert late.drifts == before.drifts
    assert look(late, candidate=100, stable=1100).drifts != before.drifts


def test_looks_are_taken_when_rows_have_grown_by_half() -> None:
    memory = Memory()
    for number in range(1, 101):
        memory = looked(memory, read_of({"a": "1"}, 10 * number), "a", now=1e9 + 30 * number)
    assert 9 <= memory.drifts[0].state["looks"] <= 13


def test_histograms_are_read_no_more_often_than_declared() -> None:
    world = rolling(drift(), rollout={"steps": [{"weightPercent": 50, "minimumSeconds": 100}]})
    reads = []
    for _ in range(10):
        world.count_rows("feature age", LIKE_IT, reference=UNIFORM)
        world.serve(requests=300)
        reads.append(world.snapshot().distributions is not None)
        world.tick()
    assert reads.count(True) == 5


def test_a_failure_is_kept_when_later_rows_are_like_the_profile_again() -> None:
    world = rolling(drift(action="Hold"))
    run(world, rows=SHIFTED, ticks=4)
    said = told(world).message
    run(world, ticks=60)
    assert (told(world).verdict, told(world).message) == ("Fail", said)


GUARD = {"guard": {"durationSeconds": 36_000, "warmReplicas": 1, "meanHoursBetweenFalseAlarms": 720}}


def guarding(objective: dict[str, Any]) -> World:
    world = rolling(objective, rollout=GUARD)
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.phase == "Step")
    for _ in range(60):
        if world.status.rollout is not None and world.status.rollout.phase == "Guard":
            return world
        run(world, ticks=1, name="prediction predict")
    raise AssertionError(world.status.message)


def test_a_guard_finds_answers_that_drift_long_after_promotion() -> None:
    world = guarding(drift("PredictionDrift", action="Rollback"))
    run(world, name="prediction predict", ticks=200)
    assert world.status.stable_revision == TWO
    run(world, name="prediction predict", rows=SHIFTED, ticks=20)
    assert world.status.stable_revision == ONE
    assert "after promotion" in world.status.rejected_revisions[-1].message


def test_a_guard_lets_a_little_drift_pass_for_hours() -> None:
    world = guarding(drift("PredictionDrift", action="Rollback"))
    run(world, name="prediction predict", rows=TILTED, ticks=1000)
    assert world.status.stable_revision == TWO
    assert world.condition(ConditionType.READY) == "True"


def alarms(rows_a_poll: int, polls: int, runs: int, *, guarded: bool, distance: float = 0.0) -> list[int | None]:
    """Returns at which poll each of these runs called rows drifted that come from the reference's own shares."""
    rng = np.random.default_rng(7)
    shares = np.full(10, 0.1)
    moved = shares + distance * np.resize([1, -1], 10)
    declared = spec("2", objectives=[drift("PredictionDrift", maximum="0.0001")], rollout={"falseRollbackPercent": "5"})
    found: list[int | None] = []
    for _ in range(runs):
        memory, live = Memory(), np.zeros(10, dtype=int)
        reference = tuple(rng.multinomial(5000, shares).tolist())
        alarm = None
        for poll in range(polls):
            live += rng.multinomial(rows_a_poll, moved)
            bins = tuple("0123456789")
            histogram = Histogram(bins, tuple(live.tolist()), reference)
            read = Distributions(TWO, {"pod": "1"}, int(live.sum()), {"prediction predict": histogram})
            case = Case(declared, memory, Snapshot(distributions={TWO: read}), TWO, None, guarded)
            memory = drifts.look(case, 1e9 + 30.0 * poll)
            judgement = drifts.judge(dataclasses.replace(case, memory=memory), declared.objectives[0])
            if judgement.fails:
                alarm = poll
                break
        found.append(alarm)
    return found


def test_many_looks_at_good_rows_keep_the_declared_chance() -> None:
    runs = 400
    false = sum(one is not None for one in alarms(200, 60, runs, guarded=False))
    assert false <= stats.binom.ppf(0.999, runs, 0.05)


def test_a_guards_windows_keep_the_declared_rate() -> None:
    # 400 polls of 30 s are 3.3 of the 720 hours that lie between two false alarms on average.
    runs = 30
    false = sum(one is not None for one in alarms(500, 400, runs, guarded=True))
    assert false <= stats.binom.ppf(0.999, runs, 400 * 30 / (720 * 3600))


@pytest.mark.parametrize("guarded", [False, True])
def test_rows_that_moved_are_found_by_every_run(*, guarded: bool) -> None:
    assert None not in alarms(500, 60, 20, guarded=guarded, distance=0.05)
