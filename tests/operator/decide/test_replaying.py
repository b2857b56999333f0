import base64
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from tests.operator import recordings
from tests.operator.worlds import spec

from kedge.api.records import Record
from kedge.decide import journals, policy, replaying
from kedge.decide.journals import JournalError
from kedge.decide.rules import gating
from kedge.decide.statistics import alpha

FINISHED = recordings.rolled_back()


def rolled_back() -> dict[str, Any]:
    """Returns a fresh copy of the record of a rolled-back rollout as JSON."""
    copied: dict[str, Any] = json.loads(json.dumps(FINISHED.records[-1].to_json()))
    return copied


def with_segment(record: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Returns the record with its first segment changed."""
    segments = record["journal"]["segments"]
    content = json.loads(zlib.decompress(base64.b64decode(segments[0])))
    change(content)
    segments[0] = base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()
    return record


def differing(record: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    found = replaying.replay(Record.model_validate(record)).differences
    return [(one.field, one.recorded, one.derived) for one in found]


def test_an_honest_record_differs_nowhere_and_tells_every_decision() -> None:
    replayed = replaying.replay(Record.model_validate(rolled_back()))

    assert replayed.differences == ()
    assert replayed.is_whole
    assert [one.decided["reason"] for one in replayed.told] == [
        "Preflight",
        "StepStarted",
        "ObjectiveFailed",
    ]
    assert replayed.told[-1].decided["objectives"]["availability"]["verdict"] == "Fail"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("record.outcome", "Promoted"),
        ("record.reason", "Aborted"),
        ("record.message", "nobody knows"),
        ("record.endedAt", "2027-01-15T09:00:00.000000Z"),
        ("record.candidate", "0123456789"),
        ("record.modelSha256", "b" * 64),
        ("record.specSha256", "b" * 64),
        ("record.abortedBy", "mallory"),
        ("record.objectives[0].bad", 1),
        ("record.objectives[0].logEValue", "0.1"),
        ("record.steps[1].requests", 7),
        ("record.steps[1].verdicts[0].message", "all is well"),
        ("record.series.points[0].objectives[0].bad", 7),
        ("record.series.every", 3),
    ],
)
def test_whatever_is_edited_in_clear_is_found_and_named(path: str, value: Any) -> None:
    record = rolled_back()
    item: Any = {"record": record}
    *way, last = path.replace("[", ".").replace("]", "").split(".")
    for name in way:
        item = item[int(name)] if isinstance(item, list) else item[name]
    before = item.get(last)
    item[last] = value

    assert differing(record) == [(path, value, before)]


def test_what_is_taken_out_or_put_in_is_found() -> None:
    record = rolled_back()
    del record["steps"][0]
    record["approvals"] = [{"step": 1, "time": "2027-01-15T08:00:00.000000Z", "manager": "mallory"}]

    fields = {field for field, _, _ in differing(record)}
    assert "record.approvals[0]" in fields
    assert any(field.startswith("record.steps[") for field in fields)


def test_a_changed_measurement_changes_what_follows_and_the_first_difference_is_there() -> None:
    def fewer_bad(content: dict[str, Any]) -> None:
        (counted,) = content["entries"][-1]["given"]["snapshot"]["samples"]["3"]["counts"]["availability"]
        counted["bad"] = 1

    found = replaying.replay(Record.model_validate(with_segment(rolled_back(), fewer_bad))).differences

    assert found[0].field.startswith("decided.")
    assert found[0].time == FINISHED.records[-1].ended_at
    bad = next(one for one in found if one.field == "decided.objectives.availability.bad")
    assert (bad.recorded, bad.derived) == (FINISHED.records[-1].objectives[0].bad, 1)
    assert ("record.outcome", "RolledBack", None) in [(one.field, one.recorded, one.derived) for one in found]


def test_another_rule_is_found_where_it_first_decides_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    promoted = recordings.rolled_out().records[-1]
    lenient = tuple(rule for rule in policy.POLICY if rule is not gating.the_step_is_young)
    monkeypatch.setattr(policy, "POLICY", lenient)

    found = replaying.replay(promoted).differences

    assert (found[0].field, found[0].recorded, found[0].derived) == ("decided.reason", "WaitingForTime", "StepStarted")


def test_another_threshold_is_found_although_the_decision_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = alpha.threshold
    monkeypatch.setattr(alpha, "threshold", lambda *given: honest(*given) * (1 + 1e-15))

    found = replaying.replay(FINISHED.records[-1]).differences

    assert {one.field for one in found} == {"decided.rest"}


def test_a_segment_that_does_not_follow_from_the_one_before_it_is_found() -> None:
    world = recordings.RecordedWorld()
    for _ in range(4):
        world.tick()
    world.declare(spec("2"))
    for _ in range(3):
        world.tick()
    world.restart_operator()
    world.run_until(lambda w: w.status.stable_revision == w.declared, requests=400)
    record = json.loads(json.dumps(world.records[-1].to_json()))

    def follow(content: dict[str, Any]) -> None:
        content["head"]["begins"] = "Size"
        content["head"]["checkpoint"]["message"] = "another"

    last = {"journal": {"segments": record["journal"]["segments"][-1:]}}
    record["journal"]["segments"][-1:] = with_segment(last, follow)["journal"]["segments"]

    assert "status.message" in [field for field, _, _ in differing(record)]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "!" + text[1:], "damaged"),
        (lambda text: base64.b64encode(b"not compressed").decode(), "damaged"),
        (lambda text: base64.b64encode(zlib.compress(b"{}")).decode(), "damaged"),
        (lambda text: base64.b64encode(zlib.compress(b"[" * 10)).decode(), "damaged"),
    ],
)
def test_a_damaged_journal_is_no_difference_but_an_error(damage: Callable[[str], str], complaint: str) -> None:
    record = rolled_back()
    record["journal"]["segments"][0] = damage(record["journal"]["segments"][0])

    with pytest.raises(JournalError, match=f"segment 1 of the journal is {complaint}"):
        replaying.replay(Record.model_validate(record))


def test_a_patch_that_does_not_fit_is_an_error() -> None:
    def misfit(content: dict[str, Any]) -> None:
        content["entries"][1]["given"] = {"snapshot": {"nothing": {"there": [1]}}}

    with pytest.raises(JournalError, match="does not fit"):
        replaying.replay(Record.model_validate(with_segment(rolled_back(), misfit)))


def test_numbers_that_cannot_be_are_an_error() -> None:
    def impossible(content: dict[str, Any]) -> None:
        content["entries"][2]["given"]["now"] = [1e300]

    with pytest.raises(JournalError, match=r"decision at 1e\+300 s cannot be made"):
        replaying.replay(Record.model_validate(with_segment(rolled_back(), impossible)))


def test_a_journal_of_another_version_is_refused() -> None:
    record = rolled_back()
    record["journal"]["version"] = 2

    with pytest.raises(JournalError, match="version 2, and this Kedge reads version 1"):
        replaying.replay(Record.model_validate(record))


def test_a_journal_that_would_fill_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "EXPANDED_LIMIT_BYTES", 1000)

    with pytest.raises(JournalError, match="too large"):
        replaying.replay(FINISHED.records[-1])


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_derives_the_same(seed: str) -> None:
    """The order of sets differs from process to process, and must not matter."""
    program = (
        "import sys; from kedge.api.records import Record; from kedge.decide import replaying;"
        "print(len(replaying.replay(Record.model_validate_json(sys.stdin.read())).differences))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(rolled_back()),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "0"
