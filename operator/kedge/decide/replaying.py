"""Makes every decision of a record again, from its journal alone, and says where the record tells otherwise."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from kedge.api.records import EvidencePoint, Record
from kedge.api.statuses import ModelDeploymentStatus
from kedge.decide import decisions, differences, journals, recording, series, times
from kedge.decide.decisions import Decision, Input
from kedge.decide.journals import Beginning, JournalError, Segment

_NOT_ALL_SEEN = frozenset({"specSha256", "steps", "approvals", "series", "gaps", "startedAt"})
"""What is told of a record whose first decisions were given up: it is compared item by item, from there on."""
_UNSEEN_END = frozenset({"outcome", "reason", "message", "endedAt", "gaps"})
"""What status told of a record whose end was not seen."""


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Where a record and what follows from its journal are not the same."""

    time: str
    """Time of the decision or of the item, empty for what belongs to the whole record."""
    field: str
    recorded: Any
    """What the record says; None when it says nothing."""
    derived: Any
    """What follows; None when nothing does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """One decision as it was made again."""

    time: str
    decided: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """What replaying a record has shown."""

    record: Record
    told: tuple[Told, ...]
    beginnings: tuple[Beginning, ...]
    """Why each segment of the journal begins."""
    differences: tuple[Difference, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the journal holds every decision from the first to the last."""
        return not self.record.journal.dropped and not self.record.gaps


def replay(record: Record) -> Replay:
    """Returns what becomes of a record when each of its decisions is made again.

    Raises:
        JournalError: The journal cannot be read, or holds what cannot be.
    """
    told: list[Told] = []
    found: list[Difference] = []
    beginnings: list[Beginning] = []
    derived: Record | None = None
    points: list[EvidencePoint] = []
    status: ModelDeploymentStatus | None = None
    for segment in journals.segments(record.journal):
        beginnings.append(segment.beginning)
        found += _broken_chain(segment, status)
        status = segment.checkpoint
        beginning: Beginning | None = segment.beginning
        for entry in segment.entries:
            given = dataclasses.replace(entry.given, status=status)
            now, decision = _decided_again(given)
            points.append(series.point(now, decision.judgements))
            decided = journals.decided(decision)
            told.append(Told(now, decided))
            found += _decided_otherwise(now, entry.decided, decided)
            subject = recording.subject_of(status, decision.status)
            if subject is not None:
                derived = recording.folded(derived, subject, given, decision, beginning)
            status, beginning = _stored(decision), None
    found += _told_otherwise(record, derived, points)
    return Replay(record, tuple(told), tuple(beginnings), tuple(found))


def _decided_again(given: Input) -> tuple[str, Decision]:
    """Returns when something was decided, and what is decided on the same input now."""
    try:
        return times.text(given.now), decisions.decide(given)
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # Numbers that no pod can have counted, or a status that no decision led to.
        raise JournalError(f"the decision at {given.now} s cannot be made on what is written there: {error}") from error


def _stored(decision: Decision) -> ModelDeploymentStatus:
    """Returns the status as the API server gives it back."""
    return ModelDeploymentStatus.model_validate(differences.canonical(decision.status.to_json()))


def _broken_chain(segment: Segment, status: ModelDeploymentStatus | None) -> Iterator[Difference]:
    """Yields where a segment that claims to follow begins with another status than the one before it led to."""
    if status is None or segment.beginning is Beginning.GAP:
        return
    time = times.text(segment.entries[0].given.now) if segment.entries else ""
    for field, ours, derived in differences.differing(segment.checkpoint.to_json(), status.to_json()):
        yield Difference(time, f"status.{field}", ours, derived)


def _decided_otherwise(time: str, ours: Mapping[str, Any], derived: Mapping[str, Any]) -> Iterator[Difference]:
    """Yields what one decision has otherwise; a digest only where nothing says more plainly what it is."""
    found = [
        Difference(time, f"decided.{field}", before, after)
        for field, before, after in differences.differing(ours, derived)
    ]
    digests = {"decided.status", "decided.rest"}
    yield from [one for one in found if one.field not in digests] or found


def _told_otherwise(record: Record, derived: Record | None, points: list[EvidencePoint]) -> Iterator[Difference]:
    """Yields where what stands in clear is not what follows from the journal."""
    ours = record.model_copy(update={"journal": Record.model_fields["journal"].default}).to_json()
    theirs = derived.to_json() if derived else {}
    if not recording.end_was_seen(record):
        ours, theirs = ({key: value for key, value in one.items() if key not in _UNSEEN_END} for one in (ours, theirs))
    if record.journal.dropped:
        yield from _items_otherwise(ours, theirs, [point.to_json() for point in points])
        ours, theirs = (
            {key: value for key, value in one.items() if key not in _NOT_ALL_SEEN} for one in (ours, theirs)
        )
    for field, before, after in differences.differing(ours, theirs):
        yield Difference(_time_of(ours, theirs, field), f"record.{field}", before, after)


def _items_otherwise(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], points: list[dict[str, Any]]
) -> Iterator[Difference]:
    """Yields items that began after the first decision that is still known, and are not what follows from it."""
    since = points[0]["time"] if points else ""
    lists = {
        "steps": ("startedAt", ours["steps"], theirs.get("steps", [])),
        "approvals": ("time", ours["approvals"], theirs.get("approvals", [])),
        "series.points": ("time", ours["series"]["points"], points),
    }
    for name, (key, items, derived) in lists.items():
        known = {item[key]: item for item in derived}
        for index, item in enumerate(items):
            if item[key] <= since:
                continue
            for field, before, after in differences.differing(item, known.get(item[key], {})):
                yield Difference(item[key], f"record.{name}[{index}].{field}", before, after)


def _time_of(ours: Mapping[str, Any], theirs: Mapping[str, Any], field: str) -> str:
    """Returns the time of the listed item that a path leads into, or nothing."""
    item: Any = ours
    other: Any = theirs
    found = ""
    for name in field.replace("[", ".").replace("]", "").split("."):
        item, other = _inside(item, name), _inside(other, name)
        for one in (item, other):
            if isinstance(one, Mapping):
                found = found or str(one.get("time") or one.get("startedAt") or "")
    return found


def _inside(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return None
