import json
from typing import Any

import pytest
from hypothesis import given as such_that
from hypothesis import settings
from hypothesis import strategies as st
from tests.operator import recordings
from tests.operator.recordings import GUARD, RecordedWorld
from tests.operator.worlds import revision_of, spec

from kedge.api import records
from kedge.api.levers import Levers
from kedge.api.records import Outcome, Period
from kedge.decide import differences, journals, recording, replaying, times
from kedge.decide.journals import Beginning

ONE, TWO = revision_of("1"), revision_of("2")
OBJECTIVES = [
    {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99"},
    {"name": "not-worse", "indicator": {"type": "Availability"}, "compareTo": "Stable", "tolerancePercent": "0.5"},
    {"name": "drift", "indicator": {"type": "FeatureDrift"}, "maximum": "0.2", "action": "Alert"},
]
STEPS = [{"weightPercent": 25, "minimumSeconds": 10, "approval": "Required"}, {"weightPercent": 50}]


def test_a_promotion_is_told_step_by_step() -> None:
    record = recordings.rolled_out().records[-1]

    assert (record.outcome, record.reason, record.period) == (Outcome.PROMOTED, "Promoted", Period.ROLLOUT)
    assert (record.model_deployment, record.candidate, record.stable) == ("churn", TWO, ONE)
    assert (record.model_uri, record.model_sha256) == ("https://models/2.skops", "a" * 64)
    assert record.spec_sha256 == differences.sha256(spec("2").to_json())
    assert [(one.phase, one.step, one.weight_percent) for one in record.steps] == [
        ("Preflight", None, 0),
        ("Step", 1, 25),
        ("Step", 2, 50),
        ("Promotion", None, 100),
    ]
    assert all(one.ended_at for one in record.steps)
    assert record.steps[0].started_at == record.started_at
    assert record.steps[-1].ended_at == record.ended_at == record.recorded_until
    assert (record.steps[1].achieved_percent, record.steps[2].achieved_percent) == ("25", "49.75")
    assert [one.requests for one in record.steps] == [0, 200, 398, 0]
    assert record.steps[1].verdicts[0].message == "0 % of 300 requests failed, objective 1 %"
    assert [one.verdict for one in record.objectives] == ["Pass"]
    assert record.gaps == ()


def test_a_rollback_is_told_with_its_evidence() -> None:
    record = recordings.rolled_back().records[-1]

    assert (record.outcome, record.reason) == (Outcome.ROLLED_BACK, "ObjectiveFailed")
    assert record.message is not None
    assert f"rejected {TWO}: availability" in record.message
    assert record.steps[-1].verdicts[0].verdict == "Fail"
    last = record.series.points[-1]
    assert (last.time, last.objectives[0].bad) == (record.ended_at, record.objectives[0].bad)
    assert float(last.objectives[0].log_e_value or 0) > float(last.objectives[0].log_threshold or 0) > 0


def test_a_revision_that_is_declared_no_more_is_cancelled() -> None:
    world = RecordedWorld(spec("1"))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2"))
    world.run_until(lambda w: w.status.candidate_revision == TWO)
    world.declare(spec("3"))
    world.run_until(lambda w: w.status.stable_revision == revision_of("3"), requests=400)

    assert [(one.candidate, one.outcome) for one in world.records[1:]] == [
        (TWO, Outcome.CANCELLED),
        (revision_of("3"), Outcome.PROMOTED),
    ]


def test_who_let_a_step_pass_and_who_took_a_revision_back_are_told() -> None:
    world = RecordedWorld(spec("1", rollout={"steps": STEPS}))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2", rollout={"steps": STEPS}))
    world.run_until(lambda w: w.reason() == "WaitingForApproval", requests=400)
    world.pull(approve=f"{TWO}/1", approved_by="kedge-cli")
    world.run_until(lambda w: w.status.rollout.step == 1, requests=400)
    approved_at = times.text(world.now - 5)
    world.pull(abort=TWO, aborted_by="argocd")
    world.tick()

    record = world.records[-1]
    assert [(one.step, one.time, one.manager) for one in record.approvals] == [(1, approved_at, "kedge-cli")]
    assert (record.reason, record.aborted_by) == ("Aborted", "argocd")


def test_a_guard_leaves_a_record_only_when_it_ends_in_a_rollback() -> None:
    world = recordings.rolled_out(rollout=GUARD)
    world.run_until(lambda w: w.status.rollout is None, ticks=200, requests=400)
    assert [one.period for one in world.records] == [Period.ROLLOUT, Period.ROLLOUT]

    world = recordings.rolled_out(rollout=GUARD)
    world.run_until(lambda w: w.status.rollout is None, requests=400, stable_bad=0.2)
    guard = world.records[-1]
    assert (guard.period, guard.outcome, guard.candidate, guard.stable) == (
        Period.GUARD,
        Outcome.ROLLED_BACK,
        TWO,
        ONE,
    )
    assert (guard.gaps, [one.phase for one in guard.steps]) == ((), ["Guard"])
    assert replaying.replay(guard).differences == ()


@pytest.mark.parametrize("period", [Period.ROLLOUT, Period.GUARD])
def test_a_long_one_stays_within_its_bounds_and_can_be_replayed(
    period: Period, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "LIMIT_BYTES", 20 * 1024)
    monkeypatch.setattr(records, "SIZE_LIMIT_BYTES", 90 * 1024)
    long = {
        "steps": [{"weightPercent": 25, "minimumSeconds": 50_000}],
        "stepDeadlineSeconds": 60_000,
        "guard": {"durationSeconds": 100_000, "warmReplicas": 1},
    }
    world = RecordedWorld(spec("1", replicas=4, objectives=OBJECTIVES, rollout=long))
    world.run_until(lambda w: w.condition("Ready") == "True")
    if period is Period.GUARD:
        long["steps"] = [{"weightPercent": 25, "minimumSeconds": 0}]
    world.declare(spec("2", replicas=4, objectives=OBJECTIVES, rollout=long))
    for poll in range(260):
        world.serve(requests=2000, bad=0.002)
        for number, counters in enumerate(world.counters.values()):
            rows = [(poll * number * size) % 7 for size in range(20)]
            for feature in range(4):
                counters.add_rows(f"feature {feature}", rows, [1 + size for size in range(20)])
        world.tick(31)
    world.run_until(lambda w: w.status.rejected_revisions, requests=4000, bad=0.5, stable_bad=0.5)

    record = world.records[-1]
    assert record.period is period
    assert len(json.dumps(record.to_json())) <= records.SIZE_LIMIT_BYTES
    assert record.journal.dropped > 0
    assert world.recording is not None
    assert sum(map(len, world.recording.journal.closed)) <= journals.LIMIT_BYTES
    assert 50 < len(record.series.points) <= records.MOST_POINTS + 1
    replayed = replaying.replay(recordings.through_json(record))
    assert replayed.differences == ()
    assert 20 < len(replayed.told) < 260
    assert record.recorded_until == record.ended_at == replayed.told[-1].time


def test_a_decision_that_the_journal_does_not_know_is_a_gap() -> None:
    world = RecordedWorld(spec("1"))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2"))
    world.run_until(lambda w: w.status.rollout and w.status.rollout.step == 1, requests=400)
    world.restart_operator()
    remembered = world.recording
    missed_since = world.now - 5
    for _ in range(2):
        world.serve(requests=400)
        world.tick()
    world.recording = remembered
    world.run_until(lambda w: w.status.stable_revision == TWO, requests=400)

    record = world.records[-1]
    (gap,) = record.gaps
    assert gap.since == times.text(missed_since)
    replayed = replaying.replay(record)
    assert replayed.beginnings == (Beginning.START, Beginning.GAP)
    assert replayed.differences == ()
    assert not replayed.is_whole


def test_a_record_that_begins_in_the_middle_says_so() -> None:
    world = RecordedWorld(spec("1"))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2"))
    world.run_until(lambda w: w.status.rollout and w.status.rollout.step == 1, requests=400)
    world.recording = world.stored = None
    world.run_until(lambda w: w.status.stable_revision == TWO, requests=400)

    record = world.records[-1]
    assert [(one.phase, one.step) for one in record.steps] == [("Step", 2), ("Promotion", None)]
    assert [one.since for one in record.gaps] == [record.started_at]
    assert replaying.replay(record).differences == ()


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        ({"stableRevision": TWO}, Outcome.PROMOTED, "Promoted"),
        ({"stableRevision": ONE}, Outcome.CANCELLED, "RolloutCancelled"),
        (
            {
                "stableRevision": ONE,
                "rejectedRevisions": [
                    {"revision": TWO, "time": "2027-01-15T08:01:00Z", "reason": "OOMKilled", "message": "killed"}
                ],
            },
            Outcome.ROLLED_BACK,
            "OOMKilled",
        ),
    ],
)
def test_a_record_left_open_is_closed_by_what_status_says(status: Any, outcome: Outcome, reason: str) -> None:
    world = RecordedWorld(spec("1"))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2"))
    world.run_until(lambda w: w.status.rollout and w.status.rollout.step == 1, requests=400)
    assert world.stored is not None

    told = type(world.status).model_validate(status)
    closed = recording.closed(world.stored, told, now=world.now)

    assert (closed.outcome, closed.reason) == (outcome, reason)
    assert closed.gaps[-1].since == closed.recorded_until
    replayed = replaying.replay(closed)
    assert replayed.differences == ()
    assert not replayed.is_whole
    edited = closed.model_copy(update={"candidate": ONE})
    assert [one.field for one in replaying.replay(edited).differences] == ["record.candidate"]


LIVES = st.lists(
    st.sampled_from(["good", "good", "bad", "nothing", "restart", "declare 2", "declare 3", "abort", "retry", "crash"]),
    min_size=5,
    max_size=40,
)


def live(world: RecordedWorld, life: list[str], *, restarts: bool) -> RecordedWorld:
    for number, deed in enumerate(life):
        match deed:
            case "good" | "bad":
                bad = 0.1 if deed == "bad" else 0.001
                world.serve(requests=400 + number, bad=bad, stable_bad=bad / 10)
                for counters in world.counters.values():
                    counters.add_rows("feature age", [number, 3, 1], [3, 3, 3])
            case "restart" if restarts:
                world.restart_operator()
            case "declare 2" | "declare 3":
                world.declare(spec(deed[-1], objectives=OBJECTIVES, rollout=GUARD))
            case "abort":
                world.pull(abort=world.status.candidate_revision or "", aborted_by="kubectl")
            case "retry":
                world.pull(retry=str(number), abort="")
            case "crash":
                world.hurt(world.status.candidate_revision or "", None, restarts=3)
        world.tick()
    return world


def new_life() -> RecordedWorld:
    return RecordedWorld(spec("1", objectives=OBJECTIVES, rollout=GUARD))


@settings(max_examples=60, deadline=None)
@such_that(LIVES)
def test_whatever_happens_is_recorded_so_that_it_can_be_replayed(life: list[str]) -> None:
    world = live(new_life(), life, restarts=True)

    present = [world.recording.stored()] if world.recording else []
    for record in [*world.records, *present]:
        assert replaying.replay(recordings.through_json(record)).differences == ()


@settings(max_examples=40, deadline=None)
@such_that(LIVES)
def test_restarts_change_no_decision_by_a_bit(life: list[str]) -> None:
    unhurt = live(new_life(), life, restarts=False)
    restarted = live(new_life(), life, restarts=True)

    assert restarted.trail == unhurt.trail
    ours, theirs = ([(one.candidate, one.outcome, one.ended_at) for one in w.records] for w in (restarted, unhurt))
    assert [one for one in ours if one in theirs] == ours


@pytest.mark.parametrize("at", range(1, 9))
def test_a_restart_at_any_pass_goes_on_in_a_new_segment(at: int) -> None:
    world = RecordedWorld(spec("1"))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2"))
    for _ in range(at):
        world.serve(requests=400)
        world.tick()
    world.restart_operator()
    world.run_until(lambda w: w.status.stable_revision == TWO, requests=400)

    record = world.records[-1]
    replayed = replaying.replay(recordings.through_json(record))
    assert (record.candidate, replayed.differences) == (TWO, ())
    assert replayed.beginnings[0] is Beginning.START
    assert replayed.beginnings[1] in {Beginning.RESTART, Beginning.GAP}
    assert bool(record.gaps) == (replayed.beginnings[1] is Beginning.GAP)
    assert [one.phase for one in record.steps] == ["Preflight", "Step", "Step", "Promotion"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=20,
)


@such_that(JSON, JSON)
def test_a_difference_makes_one_value_of_the_other_to_the_last_bit(before: Any, after: Any) -> None:
    patch = json.loads(json.dumps(differences.difference(before, after)))
    assert json.dumps(differences.changed(before, patch)) == json.dumps(after) or (before == after == 0)


def test_a_digest_does_not_depend_on_who_wrote_a_number() -> None:
    assert differences.digest({"b": 1.0, "a": [2.5, (3.0,)]}) == differences.digest({"a": [2.5, [3]], "b": 1})
    assert differences.digest({"a": 1}) != differences.digest({"a": 1.5})


def test_what_decide_is_given_survives_the_journal_unchanged() -> None:
    world = RecordedWorld(spec("1", objectives=OBJECTIVES))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.pull(approve="x/1", approved_by="somebody")
    world.declare(spec("2", objectives=OBJECTIVES))
    world.run_until(lambda w: w.status.rollout and w.status.rollout.serving_since, requests=400)
    world.serve(requests=100)
    assert world.recording is not None
    given = world.given()
    world.tick()

    *_, segment = journals.segments(world.recording.journal.stored(10**6))
    read = segment.entries[-1].given
    assert read.levers == Levers(approve="x/1", approved_by="somebody")
    assert (read.spec, read.snapshot, read.now) == (given.spec, given.snapshot, given.now)
    assert type(read.snapshot.samples[0]) is type(given.snapshot.samples[0])
