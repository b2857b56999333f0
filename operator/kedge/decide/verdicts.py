"""Judges each objective on the events that were counted, and says so in one sentence.

A Fail rests on evidence that stays valid however often it is looked at; a Pass only says that nothing was
found that these many requests would have shown, unless the objective is to be proven.
"""

import dataclasses
from collections.abc import Iterable
from enum import StrEnum

from kedge.api import specs
from kedge.api.statuses import Memory, ObjectiveStatus, RatioCounts
from kedge.decide import counting, evidence
from kedge.decide.statistics import alpha, confidence, guard, power, proof
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
    """Natural logarithm of the evidence against the objective."""
    log_threshold: float
    """The evidence at which the verdict is Fail."""
    effect: float
    """The design effect: by what the counts were divided."""
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
            design_effect=f"{self.effect:.4g}" if self.total else None,
            interval_percent=(percent(self.interval.low), percent(self.interval.high)) if self.total else None,
            detectable_percent=None if self.detectable is None else percent(self.detectable),
            message=self.message,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What is judged."""

    spec: specs.ModelDeploymentSpec
    memory: Memory
    snapshot: Snapshot
    judged: str
    """The candidate, or the promoted revision that is guarded."""
    stable: str | None
    """The revision to compare with; None for a guarded one, which has none beside it."""

    def counts(self, objective: specs.Objective, revision: str | None) -> RatioCounts:
        """Returns the events of an objective's indicator at a revision."""
        return counting.of(self.memory, objective.indicator.key, revision)

    @property
    def may_fail(self) -> int:
        """How many objectives share the bound on false alarms."""
        return max(1, sum(objective.action is specs.Action.ROLLBACK for objective in self.spec.objectives))

    @property
    def share(self) -> float:
        """The chance of a false Fail that each of these objectives may spend."""
        return alpha.share(float(self.spec.rollout.false_rollback_percent / 100), self.may_fail)


def percent(fraction: float) -> str:
    """Returns a fraction as a decimal string of percent with at most four significant digits."""
    return f"{100 * fraction:.4g}" if 100 * fraction >= 1e-4 or fraction == 0 else f"{100 * fraction:.4f}"


def judge(case: Case) -> tuple[Judgement, ...]:
    """Returns the judgement of every objective of a candidate, in the order of the spec."""
    threshold = alpha.threshold(case.share, 1)
    return tuple(
        _held_back(case, _judge_one(case, objective, _evidence(case.memory, objective, case.judged), threshold))
        for objective in case.spec.objectives
    )


def judge_guarded(case: Case, *, poll_seconds: float) -> tuple[Judgement, ...]:
    """Returns the judgement of every objective with a target at a guarded revision that is polled so often."""
    hours = case.spec.rollout.guard.mean_hours_between_false_alarms
    threshold = guard.threshold(max(1.0, hours * 3600 / poll_seconds), case.may_fail)
    return tuple(
        _judge_one(case, objective, evidence.of_guard(case.memory, objective), threshold)
        for objective in case.spec.objectives
        if objective.compare_to is specs.CompareTo.TARGET
    )


def remember_failures(memory: Memory, judgements: Iterable[Judgement]) -> Memory:
    """Returns the memory in which a failure stays one: evidence that has crossed its threshold is not taken back."""
    failed = dict.fromkeys(memory.failed_objectives)
    failed.update(dict.fromkeys(judgement.objective.name for judgement in judgements if judgement.fails))
    return memory.model_copy(update={"failed_objectives": tuple(failed)})


def _evidence(memory: Memory, objective: specs.Objective, judged: str) -> float:
    if objective.compare_to is specs.CompareTo.STABLE:
        return evidence.against_stable(memory, objective)
    return evidence.against_target(memory, objective, judged)


def _judge_one(case: Case, objective: specs.Objective, log_e: float, log_threshold: float) -> Judgement:
    counts = case.counts(objective, case.judged)
    effect = evidence.effect(case.memory, objective.indicator.key, case.judged)
    bad, total = counts.bad / effect, counts.total / effect
    failed = log_e >= log_threshold or objective.name in case.memory.failed_objectives
    verdict, message = (Verdict.FAIL, _measured(case, objective)) if failed else _not_failed(case, objective)
    is_target = objective.compare_to is specs.CompareTo.TARGET
    return Judgement(
        objective=objective,
        verdict=verdict,
        bad=counts.bad,
        total=counts.total,
        log_e=log_e,
        log_threshold=log_threshold,
        effect=effect,
        interval=confidence.confidence_sequence(bad, total, INTERVAL_ALPHA),
        detectable=power.detectable_fraction(total, objective.budget, case.share) if is_target and total else None,
        message=message,
    )


def _held_back(case: Case, judgement: Judgement) -> Judgement:
    """Returns the judgement of a candidate; it does not pass while the evidence leans against it.

    An e-value above 1 says that the requests are likelier under a violation. It is no ground to reject, for
    chance does that too, but chance is outweighed by more requests, and a violation is not.
    """
    if judgement.verdict is not Verdict.PASS or judgement.log_e <= 0:
        return judgement
    message = f"{_measured(case, judgement.objective)}: more requests must show whether that is chance"
    return dataclasses.replace(judgement, verdict=Verdict.INSUFFICIENT_DATA, message=message)


def _not_failed(case: Case, objective: specs.Objective) -> tuple[Verdict, str]:
    """Returns the verdict on an objective that nothing contradicts so far."""
    unmeasured = _unmeasured(case, objective)
    if unmeasured is not None:
        return Verdict.PROVIDER_ERROR, unmeasured
    minimum = case.spec.rollout.minimum_requests
    in_step = case.counts(objective, case.judged).step_total
    if in_step < minimum:
        return Verdict.INSUFFICIENT_DATA, f"{in_step} of {minimum} requests in this step"
    if objective.compare_to is specs.CompareTo.STABLE:
        if not case.counts(objective, case.stable).total:
            return Verdict.INSUFFICIENT_DATA, "no requests to the stable revision to compare with"
    elif case.spec.rollout.pass_when is specs.PassWhen.PROVEN and not _proven(case, objective):
        return Verdict.INSUFFICIENT_DATA, f"{_measured(case, objective)}, not proven yet"
    return Verdict.PASS, _measured(case, objective)


def _proven(case: Case, objective: specs.Objective) -> bool:
    counts = case.counts(objective, case.judged)
    effect = evidence.effect(case.memory, objective.indicator.key, case.judged)
    return proof.proven(counts.bad / effect, counts.total / effect, objective.budget, INTERVAL_ALPHA)


def _unmeasured(case: Case, objective: specs.Objective) -> str | None:
    """Returns why a ready pod of the judged revisions could not be measured at this poll, or None."""
    compared = case.stable if objective.compare_to is specs.CompareTo.STABLE else None
    judged = {case.judged, compared}
    for unmeasured in case.snapshot.unmeasured:
        if unmeasured.revision in judged:
            return unmeasured.message
    for sample in case.snapshot.samples:
        if sample.revision in judged and objective.indicator.key not in sample.counts:
            return (
                f"revision {sample.revision} started before there was an objective at"
                f" {objective.indicator.threshold_milliseconds} ms and does not count it; its next pods will"
            )
    return None


def _measured(case: Case, objective: specs.Objective) -> str:
    what = "failed"
    if objective.indicator.threshold_milliseconds is not None:
        what = f"over {objective.indicator.threshold_milliseconds} ms"
    said = f"{_share(case.counts(objective, case.judged))} requests {what}"
    if objective.compare_to is specs.CompareTo.TARGET:
        return f"{said}, objective {percent(objective.budget)} %"
    theirs = _share(case.counts(objective, case.stable))
    return f"{said}, stable {theirs}, tolerance {percent(objective.tolerance)} %"


def _share(counts: RatioCounts) -> str:
    return f"{percent(counts.bad / counts.total) if counts.total else 0} % of {counts.total}"
