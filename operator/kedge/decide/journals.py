"""The journal of a rollout: everything that its decisions rested on, so that each can be made again.

It is a list of segments. A segment begins with a whole status, the checkpoint; each entry has what was given
besides, and what was decided. The status before the next entry is the one that was decided, so it is not
written, and of what was given only what changed since the entry before. Segments stand for themselves: the
oldest can be given up when the journal grows too large, and a new one begins after a restart.
"""

import base64
import binascii
import dataclasses
import json
import typing
import zlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import pydantic
import pydantic_core

from kedge.api.records import StoredJournal
from kedge.api.statuses import ModelDeploymentStatus
from kedge.decide import differences
from kedge.decide.decisions import Decision, Input
from kedge.observe.snapshot import Snapshot

VERSION = 1
SEGMENT_BYTES = 32 * 1024
"""Of JSON, after which a segment is closed: some eighty polls of a small model. Large ones hold at least as
much again as their first entry, which alone is whole."""
LIMIT_BYTES = 256 * 1024
"""Of closed segments as they are written. A guard may last for a month: its journal is the latest part of it."""
EXPANDED_LIMIT_BYTES = 64 * 1024 * 1024
"""Of one segment that is read: more is no journal of Kedge, and would only fill memory."""

_ADAPTERS: dict[type, dict[str, pydantic.TypeAdapter[Any]]] = {
    kind: {
        name: pydantic.TypeAdapter(hint)
        for name, hint in typing.get_type_hints(kind).items()
        if hint not in (ModelDeploymentStatus, Snapshot)
    }
    for kind in (Input, Snapshot)
}


class JournalError(ValueError):
    """A stored journal cannot be read."""


class Beginning(StrEnum):
    """Why a segment begins."""

    START = "Start"
    """The rollout or guard began."""
    RESTART = "Restart"
    """The operator started anew, or another one took over, and missed nothing."""
    GAP = "Gap"
    """Something happened that the journal does not know."""
    SIZE = "Size"
    """The segment before it was long enough."""


@dataclasses.dataclass(frozen=True, slots=True)
class Journal:
    """A journal that is being written."""

    closed: tuple[str, ...] = ()
    """Segments as they are stored."""
    dropped: int = 0
    """Segments that were given up."""
    checkpoint: str = ""
    """The head of the open segment as JSON; empty when none is open."""
    entries: tuple[str, ...] = ()
    """The entries of the open segment as JSON."""
    last: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The last entry in full."""

    @property
    def led_to(self) -> str:
        """Digest of the status that the last decision led to."""
        return str(self.last["decided"]["status"])

    @property
    def is_full(self) -> bool:
        """Whether the open segment should be closed."""
        if not self.entries:
            return False
        return sum(len(entry) for entry in self.entries[1:]) >= max(SEGMENT_BYTES, len(self.entries[0]))

    def begun(self, beginning: Beginning, status: ModelDeploymentStatus) -> "Journal":
        """Returns the journal with a new segment open, and the oldest ones given up beyond the limit."""
        closed = (*self.closed, *self._opened())
        kept = _latest(closed, LIMIT_BYTES)
        head = {"begins": beginning.value, "checkpoint": status.to_json()}
        return Journal(closed=kept, dropped=self.dropped + len(closed) - len(kept), checkpoint=_json(head))

    def added(self, given: Input, decision: Decision) -> "Journal":
        """Returns the journal with one more entry."""
        entry = {"given": _written(given), "decided": decided(decision)}
        change = differences.difference(dict(self.last), entry) or {}
        return dataclasses.replace(self, entries=(*self.entries, _json(change)), last=entry)

    def stored(self, limit_bytes: int) -> StoredJournal:
        """Returns the journal as it is stored, within so many bytes: the latest segment always is."""
        segments = (*self.closed, *self._opened())
        kept = _latest(segments, limit_bytes)
        return StoredJournal(version=VERSION, dropped=self.dropped + len(segments) - len(kept), segments=kept)

    def _opened(self) -> tuple[str, ...]:
        """Returns the open segment as it is stored, if it has any entry."""
        if not self.entries:
            return ()
        text = f'{{"head":{self.checkpoint},"entries":[{",".join(self.entries)}]}}'
        return (base64.b64encode(zlib.compress(text.encode(), 9)).decode(),)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One decision as it was recorded."""

    given: Input
    """What it rested on; its status is the segment's checkpoint, and stands for the one that was decided before."""
    decided: Mapping[str, Any]
    """What was decided, as `decided` tells it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """One segment as it is read."""

    beginning: Beginning
    checkpoint: ModelDeploymentStatus
    entries: tuple[Entry, ...]


def resumed(stored: StoredJournal) -> Journal:
    """Returns a stored journal, to be gone on with."""
    return Journal(closed=stored.segments, dropped=stored.dropped)


def last_status(stored: StoredJournal) -> str:
    """Returns the digest of the status that the last stored decision led to; empty when that cannot be told."""
    try:
        (segment,) = segments(stored.model_copy(update={"segments": stored.segments[-1:]}))
    except ValueError:
        return ""
    return str(segment.entries[-1].decided["status"])


def segments(stored: StoredJournal) -> Iterator[Segment]:
    """Yields the segments of a stored journal.

    Raises:
        JournalError: It is damaged, or of another version.
    """
    if stored.version != VERSION:
        raise JournalError(f"the journal is of version {stored.version}, and this Kedge reads version {VERSION}")
    for number, text in enumerate(stored.segments, start=1):
        try:
            yield _read(text)
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error, binascii.Error) as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise JournalError(f"segment {number} of the journal is damaged: {told}") from error


def decided(decision: Decision) -> dict[str, Any]:
    """Returns what was decided: its gist in words and numbers, and digests of all of it."""
    rollout = decision.status.rollout
    rest = (decision.events, decision.plan, decision.look_again_seconds, decision.judgements)
    return {
        "reason": decision.reason.value,
        "message": decision.status.message,
        "phase": rollout and rollout.phase,
        "step": rollout and rollout.step,
        "objectives": {one.objective.name: one.to_status().to_json() for one in decision.judgements},
        "status": differences.digest(decision.status.to_json()),
        "rest": differences.sha256(pydantic_core.to_jsonable_python(rest))[: differences.DIGEST_DIGITS],
    }


def _written(given: Input) -> dict[str, Any]:
    return {**_dumped(given), "snapshot": _dumped(given.snapshot)}


def _dumped(part: Input | Snapshot) -> dict[str, Any]:
    adapters = _ADAPTERS[type(part)].items()
    return {name: adapter.dump_python(getattr(part, name), mode="json") for name, adapter in adapters}


def _read(text: str) -> Segment:
    expander = zlib.decompressobj()
    expanded = expander.decompress(base64.b64decode(text, validate=True), EXPANDED_LIMIT_BYTES)
    if not expander.eof:
        raise ValueError("it is incomplete or too large")
    content = json.loads(expanded)
    head = content["head"]
    checkpoint = ModelDeploymentStatus.model_validate(head["checkpoint"])
    entry: Any = {}
    entries = []
    for change in content["entries"]:
        entry = differences.changed(entry, change)
        entries.append(Entry(_given(entry["given"], checkpoint), entry["decided"]))
    return Segment(Beginning(head["begins"]), checkpoint, tuple(entries))


def _given(written: Mapping[str, Any], status: ModelDeploymentStatus) -> Input:
    """Returns the input of a decision; a field that a later Kedge has added keeps its default."""
    snapshot = Snapshot(**_validated(Snapshot, written["snapshot"]))
    return Input(**_validated(Input, written), snapshot=snapshot, status=status)


def _validated(kind: type, written: Mapping[str, Any]) -> dict[str, Any]:
    adapters = _ADAPTERS[kind].items()
    return {name: adapter.validate_python(written[name]) for name, adapter in adapters if name in written}


def _latest(items: tuple[str, ...], limit_bytes: int) -> tuple[str, ...]:
    """Returns the latest items that fit into so many bytes together, at least one."""
    total, kept = 0, 0
    for item in reversed(items):
        total += len(item)
        if total > limit_bytes and kept:
            break
        kept += 1
    return items[len(items) - kept :]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
