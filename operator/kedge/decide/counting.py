"""Turns cumulative counters of pods into sums of events by revision.

Pods come and go, restart, and are read late or twice; no sequence of readings counts an event twice or
takes one back.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from kedge.api.statuses import Memory, PodBaseline, RatioCounts
from kedge.observe.snapshot import EventCounts, Sample, Snapshot

NOTHING = EventCounts(bad=0, total=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Increment:
    """Events of one indicator at one revision since they were last counted."""

    indicator: str
    revision: str
    bad: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """What one snapshot added."""

    memory: Memory
    increments: tuple[Increment, ...]
    past: tuple[Increment, ...]
    """What pods that were read for the first time had counted before, and is no part of the rollout."""


def count(memory: Memory, snapshot: Snapshot, *, candidate: str) -> Counted:
    """Returns the memory with the snapshot's samples counted, and what they added.

    The candidate's pods are counted from zero, since all that they ever served belongs to this rollout. The
    other pods are counted from their first reading.
    """
    baselines = {baseline.uid: baseline for baseline in memory.baselines}
    added: dict[tuple[str, str], EventCounts] = {}
    past: dict[tuple[str, str], EventCounts] = {}
    for sample in snapshot.samples:
        known = baselines.get(sample.pod_uid)
        if known is None and sample.revision != candidate:
            baselines[sample.pod_uid] = _baseline(sample, None)
            for indicator, events in sample.counts.items():
                _add(past, (indicator, sample.revision), events, NOTHING)
            continue
        if known is not None and _is_stale(known, sample):
            continue
        for indicator, events in sample.counts.items():
            before = _counted_before(known, sample, indicator, first_is_counted=sample.revision == candidate)
            if before is None:
                continue
            _add(added, (indicator, sample.revision), events, before)
        baselines[sample.pod_uid] = _baseline(sample, known)
    increments = _increments(added)
    counted = memory.model_copy(
        update={
            # Kept for pods that are gone too: one that a late reading brings back is not counted again.
            "baselines": tuple(baselines.values()),
            "counts": _summed(memory.counts, increments),
        }
    )
    return Counted(counted, increments, _increments(past))


def begin_step(memory: Memory) -> Memory:
    """Returns the memory with nothing counted yet for the step that begins."""
    return memory.model_copy(
        update={"counts": tuple(one.model_copy(update={"step_total": 0}) for one in memory.counts)}
    )


def of(memory: Memory, indicator: str, revision: str | None) -> RatioCounts:
    """Returns the sums of an indicator at a revision; zeros when nothing was counted."""
    for one in memory.counts:
        if one.indicator == indicator and one.revision == revision:
            return one
    return RatioCounts(indicator=indicator, revision=revision or "", bad=0, total=0)


def _add(
    sums: dict[tuple[str, str], EventCounts], key: tuple[str, str], events: EventCounts, before: EventCounts
) -> None:
    so_far = sums.get(key, NOTHING)
    sums[key] = EventCounts(so_far.bad + events.bad - before.bad, so_far.total + events.total - before.total)


def _increments(sums: Mapping[tuple[str, str], EventCounts]) -> tuple[Increment, ...]:
    return tuple(
        Increment(indicator, revision, min(events.bad, events.total), events.total)
        for (indicator, revision), events in sums.items()
    )


def _counted_before(
    known: PodBaseline | None, sample: Sample, indicator: str, *, first_is_counted: bool
) -> EventCounts | None:
    """Returns the events of the sample that were counted already; None when this reading is only a baseline."""
    if known is None:
        return NOTHING
    if _restarted(known, sample):
        return NOTHING
    if indicator not in known.counts:
        return NOTHING if first_is_counted else None
    bad, total = known.counts[indicator]
    return EventCounts(bad, total)


def _restarted(known: PodBaseline, sample: Sample) -> bool:
    return known.process_started_at != sample.process_started_at or (
        not sample.process_started_at and _went_back(known, sample)
    )


def _is_stale(known: PodBaseline, sample: Sample) -> bool:
    """Tells a reading that is older than the last one: counters of one process never go back."""
    return not _restarted(known, sample) and _went_back(known, sample)


def _went_back(known: PodBaseline, sample: Sample) -> bool:
    return any(
        events.total < known.counts[indicator][1] or events.bad < known.counts[indicator][0]
        for indicator, events in sample.counts.items()
        if indicator in known.counts
    )


def _baseline(sample: Sample, known: PodBaseline | None) -> PodBaseline:
    kept = known.counts if known is not None and not _restarted(known, sample) else {}
    return PodBaseline(
        uid=sample.pod_uid,
        revision=sample.revision,
        process_started_at=sample.process_started_at,
        counts=kept | {indicator: (events.bad, events.total) for indicator, events in sample.counts.items()},
    )


def _summed(counts: Iterable[RatioCounts], increments: Iterable[Increment]) -> tuple[RatioCounts, ...]:
    sums = {(one.indicator, one.revision): one for one in counts}
    for added in increments:
        key = (added.indicator, added.revision)
        so_far = sums.get(key) or RatioCounts(indicator=added.indicator, revision=added.revision, bad=0, total=0)
        sums[key] = so_far.model_copy(
            update={
                "bad": so_far.bad + added.bad,
                "total": so_far.total + added.total,
                "step_total": so_far.step_total + added.total,
            }
        )
    return tuple(sums.values())
