"""`kedge replay`: derives recorded rollouts again and says where the records differ."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kedge.api.records import Record
from kedge.cli import inputs
from kedge.cli.errors import CommandError
from kedge.decide import journals, recording, replaying
from kedge.decide.replaying import Replay, Told

IDENTICAL, DIFFERS = 0, 1
"""Exit codes."""


def run(path: str, *, verbose: bool, as_json: bool) -> tuple[int, str]:
    """Returns the exit code and what is to be printed.

    Raises:
        CommandError: A record cannot be read.
    """
    replays = {}
    for item in inputs.objects(path):
        name, record = inputs.record(path, item)
        try:
            replays[name] = replaying.replay(record)
        except journals.JournalError as error:
            raise CommandError(f"RolloutRecord {name} cannot be replayed: {error}") from error
    code = DIFFERS if any(replay.differences for replay in replays.values()) else IDENTICAL
    if as_json:
        told = {"records": [_as_json(name, replay, verbose=verbose) for name, replay in replays.items()]}
        return code, json.dumps(told, indent=2)
    return code, "\n\n".join("\n".join(_lines(name, replay, verbose=verbose)) for name, replay in replays.items())


def _lines(name: str, replay: Replay, *, verbose: bool) -> Iterator[str]:
    record = replay.record
    found = len(replay.differences)
    says = "no difference" if not found else "1 difference" if found == 1 else f"{found} differences"
    made = len(replay.told)
    yield f"{name}: {made} {'decision' if made == 1 else 'decisions'} derived again, {says}"
    yield f"  {_subject(record)}"
    yield f"  {outcome(record)}"
    for objective in record.objectives:
        yield f"  {objective.name}: {objective.verdict}, {objective.message}"
    yield from (f"  {sentence}" for sentence in missing(record))
    if verbose:
        yield from (_decision(one) for one in replay.told)
    for number, difference in enumerate(replay.differences):
        at = f"{difference.time}  " if difference.time else ""
        yield ("  first: " if number == 0 else "         ") + f"{at}{difference.field}"
        yield f"         recorded {_value(difference.recorded)}, derived {_value(difference.derived)}"


def outcome(record: Record) -> str:
    """Returns how the rollout ended, in one sentence."""
    if record.outcome is None:
        return f"not ended when it was last stored, at {record.recorded_until}"
    return f"{record.outcome} ({record.reason}) at {record.ended_at}: {record.message}"


def missing(record: Record) -> Iterator[str]:
    """Yields a sentence for whatever the journal does not hold."""
    if record.journal.dropped:
        dropped = record.journal.dropped
        yield f"the journal is too long to be kept whole: its first {dropped} segments were given up"
    for gap in record.gaps:
        yield f"nothing is known from {gap.since} to {gap.until}: {gap.cause}"
    if not recording.end_was_seen(record):
        yield "the outcome was told by the status, and cannot be derived"


def _subject(record: Record) -> str:
    beside = f" beside {record.stable}" if record.stable else ""
    return f"{record.period.value.lower()} of {record.candidate}{beside} of {record.model_deployment}"


def _decision(told: Told) -> str:
    decided = told.decided
    at = f"{decided['phase']} {decided['step'] + 1}" if decided["phase"] == "Step" else decided["phase"] or "-"
    evidence = "; ".join(f"{name} {_evidence(one)}" for name, one in decided["objectives"].items())
    return f"  {told.time}  {at:<10} {decided['reason']:<22} {evidence}".rstrip()


def _evidence(objective: Mapping[str, Any]) -> str:
    said = f"{objective['verdict']} {objective['bad']}/{objective['requests']}"
    return said + (f" log e {objective['logEValue']}" if "logEValue" in objective else "")


def _value(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def _as_json(name: str, replay: Replay, *, verbose: bool) -> dict[str, Any]:
    record = replay.record
    told = {
        "name": name,
        "identical": not replay.differences,
        "whole": replay.is_whole,
        "decisions": len(replay.told),
        "segments": [beginning.value for beginning in replay.beginnings],
        "dropped": record.journal.dropped,
        "gaps": [gap.to_json() for gap in record.gaps],
        "outcome": record.outcome,
        "reason": record.reason,
        "differences": [
            {"time": one.time, "field": one.field, "recorded": one.recorded, "derived": one.derived}
            for one in replay.differences
        ],
    }
    return told | ({"told": [{"time": one.time, **one.decided} for one in replay.told]} if verbose else {})
