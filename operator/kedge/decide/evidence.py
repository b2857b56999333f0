"""The sequential tests of a rollout: feeds them the increments of each poll, and keeps their states in memory."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from kedge.api import specs
from kedge.api.statuses import Memory, NamedState
from kedge.decide import counting
from kedge.decide.counting import Increment
from kedge.decide.statistics import design_effect, guard, two_sample

NOTHING = (0, 0)

PAST_REQUESTS = 10_000.0
"""Requests that stable's past is worth at most: enough to know its fraction of bad ones, and soon outweighed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Poll:
    """What one poll added, for the judged revision and for the one that it is compared with."""

    increments: tuple[Increment, ...]
    judged: str
    stable: str | None
    past: tuple[Increment, ...] = ()
    """What stable's pods had counted before they were read for the first time."""

    def of(self, indicator: str, revision: str | None) -> tuple[int, int]:
        """Returns the bad and total events of an indicator at a revision."""
        return _of(self.increments, indicator, revision)

    @property
    def counted(self) -> bool:
        """Whether the judged revision had new requests."""
        return any(one.revision == self.judged and one.total for one in self.increments)


def add(memory: Memory, objectives: Iterable[specs.Objective], poll: Poll) -> Memory:
    """Returns the memory after a poll of a candidate beside the stable revision."""
    comparisons, spreads = states_of(memory.comparisons), states_of(memory.spreads)
    for key in {one.indicator for one in poll.increments if one.revision == poll.stable}:
        spreads[key] = dataclasses.asdict(design_effect.add(_spread(spreads.get(key)), *poll.of(key, poll.stable)))
    for objective in objectives:
        if objective.compare_to is not specs.CompareTo.STABLE or objective.indicator.is_drift:
            continue
        ours, theirs = (poll.of(objective.indicator.key, revision) for revision in (poll.judged, poll.stable))
        past = _of(poll.past, objective.indicator.key, poll.stable)
        if ours == theirs == past == NOTHING:
            continue
        state = two_sample.update(
            _taught(_comparison(comparisons.get(objective.name)), past, objective.tolerance),
            candidate_bad=ours[0],
            candidate_total=ours[1],
            stable_bad=theirs[0],
            stable_total=theirs[1],
            tolerance=objective.tolerance,
        )
        comparisons[objective.name] = dataclasses.asdict(state)
    return memory.model_copy(
        update={
            "polls": memory.polls + poll.counted,
            "comparisons": named(comparisons),
            "spreads": named(spreads),
        }
    )


def watch(memory: Memory, objectives: Iterable[specs.Objective], poll: Poll) -> Memory:
    """Returns the memory after a poll of a revision that was promoted and is guarded."""
    guards = states_of(memory.guards)
    for objective in objectives:
        bad, total = poll.of(objective.indicator.key, poll.judged)
        if objective.compare_to is not specs.CompareTo.TARGET or not total:
            continue
        divisor = effect(memory, objective.indicator.key, poll.judged)
        state = guard.update(
            _guard(guards.get(objective.name)), bad=bad / divisor, total=total / divisor, budget=objective.budget
        )
        guards[objective.name] = dataclasses.asdict(state)
    return memory.model_copy(update={"polls": memory.polls + poll.counted, "guards": named(guards)})


def effect(memory: Memory, indicator: str, judged: str) -> float:
    """Returns the design effect: by what counts of the judged revision are divided, at least 1."""
    counts = counting.of(memory, indicator, judged)
    poll_size = counts.total / memory.polls if memory.polls else 0.0
    return design_effect.design_effect(_spread(states_of(memory.spreads).get(indicator)), poll_size=poll_size)


def against_stable(memory: Memory, objective: specs.Objective) -> float:
    """Returns the log e-value against "no worse than stable"."""
    return _comparison(states_of(memory.comparisons).get(objective.name)).log_e


def of_guard(memory: Memory, objective: specs.Objective) -> float:
    """Returns the log of the guard's detector."""
    return _guard(states_of(memory.guards).get(objective.name)).log_e


def _of(increments: Iterable[Increment], indicator: str, revision: str | None) -> tuple[int, int]:
    for one in increments:
        if one.indicator == indicator and one.revision == revision:
            return one.bad, one.total
    return NOTHING


def _taught(state: two_sample.TwoSampleState, past: tuple[int, int], tolerance: float) -> two_sample.TwoSampleState:
    """Returns the comparison that knows how stable fared before: it then need not guess where to look.

    The past decides only which alternatives are staked on, so the guarantee does not rest on it.
    """
    bad, total = past
    scale = min(1.0, PAST_REQUESTS / total) if total else 0.0
    return two_sample.update(
        state,
        candidate_bad=0.0,
        candidate_total=0.0,
        stable_bad=bad * scale,
        stable_total=total * scale,
        tolerance=tolerance,
    )


def states_of(kept: Iterable[NamedState]) -> dict[str, dict[str, Any]]:
    """Returns the states that memory keeps, by name."""
    return {one.name: one.state for one in kept}


def named(states: Mapping[str, dict[str, Any]]) -> tuple[NamedState, ...]:
    """Returns states as memory keeps them, in the order of their names."""
    return tuple(NamedState(name=name, state=states[name]) for name in sorted(states))


def _comparison(state: dict[str, Any] | None) -> two_sample.TwoSampleState:
    return two_sample.TwoSampleState() if state is None else two_sample.TwoSampleState.from_fields(state)


def _spread(state: dict[str, Any] | None) -> design_effect.Spread:
    return design_effect.Spread() if state is None else design_effect.Spread.from_fields(state)


def _guard(state: dict[str, Any] | None) -> guard.GuardState:
    return guard.GuardState() if state is None else guard.GuardState.from_fields(state)
