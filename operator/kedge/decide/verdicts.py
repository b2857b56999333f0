"""Judges each objective on what was measured, and says so in one sentence.

A Fail rests on evidence that stays valid however often it is looked at; a Pass only says that nothing was
found that these many requests would have shown, unless the objective is to be proven.
"""

from collections.abc import Iterable

from kedge.api import specs
from kedge.api.statuses import Memory, RatioCounts
from kedge.decide import drifts, evidence
from kedge.decide.judgements import Case, Judgement, RatioEvidence, Verdict, percent
from kedge.decide.statistics import alpha, confidence, guard, power, proof, ratio

INTERVAL_ALPHA = 0.05
"""The shown interval covers the true share at every look with 95 % probability."""

_BAD = {
    specs.IndicatorType.AVAILABILITY: "requests failed",
    specs.IndicatorType.VALID_INPUTS: "rows were outside the profile",
    specs.IndicatorType.FEEDBACK: "labelled predictions were wrong",
}


def judge(case: Case, *, poll_seconds: float) -> tuple[Judgement, ...]:
    """Returns the judgement of every objective, in the order of the spec, at a revision that is polled so often."""
    return tuple(
        drifts.judge(case, objective) if objective.indicator.is_drift else _judge_ratio(case, objective, poll_seconds)
        for objective in case.objectives
    )


def remember_failures(memory: Memory, judgements: Iterable[Judgement]) -> Memory:
    """Returns the memory in which a failure stays one: evidence that has crossed its threshold is not taken back."""
    failed = dict.fromkeys(memory.failed_objectives)
    failed.update(dict.fromkeys(judgement.objective.name for judgement in judgements if judgement.fails))
    return memory.model_copy(update={"failed_objectives": tuple(failed)})


def _judge_ratio(case: Case, objective: specs.Objective, poll_seconds: float) -> Judgement:
    found = _evidence(case, objective, poll_seconds)
    failed = found.log_e >= found.log_threshold or objective.name in case.memory.failed_objectives
    verdict, message = (Verdict.FAIL, _measured(case, objective)) if failed else _not_failed(case, objective, found)
    if not case.guarded and verdict is Verdict.PASS and found.log_e > 0:
        # An e-value above 1 says that the requests are likelier under a violation. It is no ground to reject, for
        # chance does that too, but chance is outweighed by more requests, and a violation is not.
        verdict = Verdict.INSUFFICIENT_DATA
        message = f"{message}: more requests must show whether that is chance"
    return Judgement(objective, verdict, message, found)


def _evidence(case: Case, objective: specs.Objective, poll_seconds: float) -> RatioEvidence:
    counts = case.counts(objective, case.judged)
    effect = evidence.effect(case.memory, objective.indicator.key, case.judged)
    bad, total = counts.bad / effect, counts.total / effect
    against_target = objective.compare_to is specs.CompareTo.TARGET
    if case.guarded:
        log_e = evidence.of_guard(case.memory, objective)
        polls = max(1.0, case.mean_seconds_between_false_alarms / poll_seconds)
        log_threshold = guard.threshold(polls, case.may_fail)
    else:
        log_e = (
            ratio.log_e_value(bad, total, objective.budget)
            if against_target
            else evidence.against_stable(case.memory, objective)
        )
        log_threshold = alpha.threshold(case.share, 1)
    return RatioEvidence(
        bad=counts.bad,
        total=counts.total,
        log_e=log_e,
        log_threshold=log_threshold,
        alpha=None if case.guarded else case.share,
        effect=effect,
        interval=confidence.confidence_sequence(bad, total, INTERVAL_ALPHA),
        detectable=power.detectable_fraction(total, objective.budget, case.share) if against_target and total else None,
    )


def _not_failed(case: Case, objective: specs.Objective, found: RatioEvidence) -> tuple[Verdict, str]:
    """Returns the verdict on an objective that nothing contradicts so far."""
    unmeasured = _unmeasured(case, objective)
    if unmeasured is not None:
        return Verdict.PROVIDER_ERROR, unmeasured
    minimum = case.spec.rollout.minimum_requests
    in_step = case.counts(objective, case.judged).step_total
    if in_step < minimum:
        return Verdict.INSUFFICIENT_DATA, f"{in_step} of {minimum} {_events(objective)} in this step"
    if objective.compare_to is specs.CompareTo.STABLE:
        if not case.counts(objective, case.stable).total:
            return (
                Verdict.INSUFFICIENT_DATA,
                f"no {_events(objective)} of the stable revision to compare with",
            )
    elif case.spec.rollout.pass_when is specs.PassWhen.PROVEN and not _proven(objective, found):
        return Verdict.INSUFFICIENT_DATA, f"{_measured(case, objective)}, not proven yet"
    return Verdict.PASS, _measured(case, objective)


def _proven(objective: specs.Objective, found: RatioEvidence) -> bool:
    return proof.proven(found.bad / found.effect, found.total / found.effect, objective.budget, INTERVAL_ALPHA)


def _unmeasured(case: Case, objective: specs.Objective) -> str | None:
    """Returns why a ready pod of the judged revisions could not be measured at this poll, or None."""
    compared = case.stable if objective.compare_to is specs.CompareTo.STABLE else None
    judged = {case.judged, compared}
    for unmeasured in case.snapshot.unmeasured:
        if unmeasured.revision in judged:
            return unmeasured.message
    for sample in case.snapshot.samples:
        if sample.revision in judged and objective.indicator.key not in sample.counts:
            return _uncounted(sample.revision, objective.indicator)
    return None


def _uncounted(revision: str, indicator: specs.Indicator) -> str:
    if indicator.threshold_milliseconds is not None:
        return (
            f"revision {revision} started before there was an objective at {indicator.threshold_milliseconds} ms and"
            " does not count it; its next pods will"
        )
    if indicator.type is specs.IndicatorType.VALID_INPUTS:
        return (
            f"the server of revision {revision} does not check rows: pack its model with a profile"
            " (kedge-server package --reference)"
        )
    return f"the server of revision {revision} does not count {indicator.type}"


def _measured(case: Case, objective: specs.Objective) -> str:
    threshold = objective.indicator.threshold_milliseconds
    what = f"requests over {threshold} ms" if threshold is not None else _BAD[objective.indicator.type]
    said = f"{_share(case.counts(objective, case.judged))} {what}"
    if objective.compare_to is specs.CompareTo.TARGET:
        return f"{said}, objective {percent(objective.budget)} %"
    theirs = _share(case.counts(objective, case.stable))
    return f"{said}, stable {theirs}, tolerance {percent(objective.tolerance)} %"


def _events(objective: specs.Objective) -> str:
    match objective.indicator.type:
        case specs.IndicatorType.VALID_INPUTS:
            return "rows"
        case specs.IndicatorType.FEEDBACK:
            return "labelled predictions"
        case _:
            return "requests"


def _share(counts: RatioCounts) -> str:
    return f"{percent(counts.bad / counts.total) if counts.total else 0} % of {counts.total}"
