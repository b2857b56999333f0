"""Judges each objective on the events that were counted, and says so in one sentence.

A Fail rests on evidence that stays valid however often it is looked at; a Pass only says that nothing was
found that these many requests would have shown.
"""

import dataclasses
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from kedge.api import specs
from kedge.api.statuses import Comparison, Memory, ObjectiveStatus, RatioCounts
from kedge.decide import counting
from kedge.decide.counting import Increment
from kedge.decide.statistics import alpha, confidence, power, ratio, two_sample
from kedge.observe.snapshot import Snapshot

INTERVAL_ALPHA = 0.05
"""The shown interval covers the true share at every look with 95 % probability."""


class Verdict(StrEnum):
    """What can be said about an objective. Only Fail may roll back."""

    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    INSUFFICIENT_DATA = "InsufficientData"
    PROVIDER_ERROR = "ProviderError"


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one objective, with its evidence."""

    objective: specs.Objective
    verdict: Verdict
    bad: int
    total: int
    log_e: float
    """Natural logarithm of the e-value: the evidence against the objective."""
    log_threshold: float
    """The evidence at which the verdict is Fail."""
    interval: confidence.Interval
    """Where the true bad fraction lies, at every look."""
    detectable: float | None
    """The smallest bad fraction that this many requests would have revealed; None when none would."""
    message: str

    @property
    def fails(self) -> bool:
        """Whether the measured events contradict the objective."""
        return self.verdict is Verdict.FAIL

    def to_status(self) -> ObjectiveStatus:
        """Returns the judgement as status shows it."""
        return ObjectiveStatus(
            name=self.objective.name,
            verdict=self.verdict.value,
            requests=self.total,
            bad=self.bad,
            estimate_percent=percent(self.bad / self.total) if self.total else None,
            interval_percent=(percent(self.interval.low), percent(self.interval.high)) if self.total else None,
            detectable_percent=None if self.detectable is None else percent(self.detectable),
            message=self.message,
        )


def percent(fraction: float) -> str:
    """Returns a fraction as a decimal string of percent with at most four significant digits."""
    return f"{100 * fraction:.4g}" if 100 * fraction >= 1e-4 or fraction == 0 else f"{100 * fraction:.4f}"


def compare(
    memory: Memory,
    objectives: Iterable[specs.Objective],
    increments: Iterable[Increment],
    *,
    candidate: str,
    stable: str | None,
) -> Memory:
    """Returns the memory with these increments as one more block of every comparison with the stable revision."""
    added = {(one.indicator, one.revision): one for one in increments}
    states = {comparison.objective: comparison.state for comparison in memory.comparisons}
    for objective in objectives:
        if objective.compare_to is not specs.CompareTo.STABLE:
            continue
        ours = added.get((objective.indicator.key, candidate))
        theirs = added.get((objective.indicator.key, stable or ""))
        if ours is None and theirs is None:
            continue
        state = two_sample.update(
            _comparison(states.get(objective.name)),
            candidate_bad=ours.bad if ours else 0,
            candidate_total=ours.total if ours else 0,
            stable_bad=theirs.bad if theirs else 0,
            stable_total=theirs.total if theirs else 0,
            tolerance=objective.tolerance,
        )
        states[objective.name] = dataclasses.asdict(state)
    comparisons = tuple(Comparison(objective=name, state=state) for name, state in states.items())
    return memory.model_copy(update={"comparisons": comparisons})


def judge(
    spec: specs.ModelDeploymentSpec, memory: Memory, snapshot: Snapshot, *, candidate: str, stable: str | None
) -> tuple[Judgement, ...]:
    """Returns the judgement of every objective, in the order of the spec."""
    may_roll_back = sum(objective.action is specs.Action.ROLLBACK for objective in spec.objectives)
    share = alpha.share(float(spec.rollout.false_rollback_percent / 100), max(1, may_roll_back))
    return tuple(
        _judge_one(objective, spec, memory, snapshot, candidate=candidate, stable=stable, share=share)
        for objective in spec.objectives
    )


def remember_failures(memory: Memory, judgements: Iterable[Judgement]) -> Memory:
    """Returns the memory in which a failure stays one: evidence that has crossed its threshold is not taken back."""
    failed = dict.fromkeys(memory.failed_objectives)
    failed.update(dict.fromkeys(judgement.objective.name for judgement in judgements if judgement.fails))
    return memory.model_copy(update={"failed_objectives": tuple(failed)})


def _judge_one(
    objective: specs.Objective,
    spec: specs.ModelDeploymentSpec,
    memory: Memory,
    snapshot: Snapshot,
    *,
    candidate: str,
    stable: str | None,
    share: float,
) -> Judgement:
    minimum_requests = spec.rollout.minimum_requests
    counts = counting.of(memory, objective.indicator.key, candidate)
    log_e = _evidence(objective, memory, counts.bad, counts.total)
    log_threshold = alpha.threshold(share, 1)
    compared = stable if objective.compare_to is specs.CompareTo.STABLE else None
    provider_error = _provider_error(objective, snapshot, judged={candidate, compared})
    if log_e >= log_threshold or objective.name in memory.failed_objectives:
        verdict, message = Verdict.FAIL, _measured(objective, memory, candidate, stable)
    elif provider_error is not None:
        verdict, message = Verdict.PROVIDER_ERROR, provider_error
    elif counts.step_total < minimum_requests:
        verdict = Verdict.INSUFFICIENT_DATA
        message = f"{counts.step_total} of {minimum_requests} requests in this step"
    elif compared is not None and counting.of(memory, objective.indicator.key, compared).total == 0:
        verdict, message = Verdict.INSUFFICIENT_DATA, "no requests to the stable revision to compare with"
    else:
        verdict, message = Verdict.PASS, _measured(objective, memory, candidate, stable)
    return Judgement(
        objective=objective,
        verdict=verdict,
        bad=counts.bad,
        total=counts.total,
        log_e=log_e,
        log_threshold=log_threshold,
        interval=confidence.confidence_sequence(counts.bad, counts.total, INTERVAL_ALPHA),
        detectable=_detectable(objective, counts.total, share),
        message=message,
    )


def _evidence(objective: specs.Objective, memory: Memory, bad: int, total: int) -> float:
    if objective.compare_to is specs.CompareTo.TARGET:
        return ratio.log_e_value(bad, total, objective.budget)
    states = {comparison.objective: comparison.state for comparison in memory.comparisons}
    return _comparison(states.get(objective.name)).log_e


def _detectable(objective: specs.Objective, total: int, share: float) -> float | None:
    if objective.compare_to is not specs.CompareTo.TARGET or total == 0:
        return None
    return power.detectable_fraction(total, objective.budget, share)


def _comparison(state: dict[str, Any] | None) -> two_sample.TwoSampleState:
    return two_sample.TwoSampleState() if state is None else two_sample.TwoSampleState.from_fields(state)


def _provider_error(objective: specs.Objective, snapshot: Snapshot, judged: set[str | None]) -> str | None:
    """Returns why a ready pod of the judged revisions could not be measured at this poll, or None."""
    for unmeasured in snapshot.unmeasured:
        if unmeasured.revision in judged:
            return unmeasured.message
    for sample in snapshot.samples:
        if sample.revision in judged and objective.indicator.key not in sample.counts:
            return (
                f"revision {sample.revision} started before there was an objective at"
                f" {objective.indicator.threshold_milliseconds} ms and does not count it; its next pods will"
            )
    return None


def _measured(objective: specs.Objective, memory: Memory, candidate: str, stable: str | None) -> str:
    what = "failed"
    if objective.indicator.threshold_milliseconds is not None:
        what = f"over {objective.indicator.threshold_milliseconds} ms"
    key = objective.indicator.key
    said = f"{_share(counting.of(memory, key, candidate))} requests {what}"
    if objective.compare_to is specs.CompareTo.TARGET:
        return f"{said}, objective {percent(objective.budget)} %"
    theirs = _share(counting.of(memory, key, stable))
    return f"{said}, stable {theirs}, tolerance {percent(objective.tolerance)} %"


def _share(counts: RatioCounts) -> str:
    return f"{percent(counts.bad / counts.total) if counts.total else 0} % of {counts.total}"
