"""Rules that keep a rollout where it is, each naming what it waits for."""

from kedge.api import levers, specs
from kedge.api.conditions import Reason
from kedge.decide.judgements import Judgement, Verdict
from kedge.decide.rules import outcomes
from kedge.decide.situations import Outcome, Phase, Situation


def pods_are_missing(situation: Situation) -> Outcome | None:
    """The present phase needs more pods than are ready."""
    if situation.ready >= situation.wanted:
        return None
    message = f"{situation.ready} of {situation.wanted} candidate pods are ready"
    return outcomes.wait(situation, Reason.WAITING_FOR_REPLICAS, outcomes.with_trouble(situation, message))


def other_pods_linger(situation: Situation) -> Outcome | None:
    """The Service is about to select all pods, so those of other revisions must be gone."""
    if situation.rollout.phase != Phase.PREFLIGHT:
        return None
    others = [
        pod.name
        for pod in situation.snapshot.pods
        if not pod.terminating and pod.revision not in {situation.stable, situation.candidate}
    ]
    if not others:
        return None
    return outcomes.wait(
        situation, Reason.WAITING_FOR_REPLICAS, f"pods of another revision are still there: {others[0]}"
    )


def an_objective_holds(situation: Situation) -> Outcome | None:
    """An objective whose action is Hold fails: the step stays until a person has decided."""
    failed = situation.failed(specs.Action.HOLD)
    if failed is None:
        return None
    message = f"{failed.objective.name}, {failed.message}"
    return outcomes.wait(situation, Reason.OBJECTIVE_ON_HOLD, message, stalled=True)


def the_rollout_is_paused(situation: Situation) -> Outcome | None:
    """A pause holds the step; what fails still rolls back."""
    if not situation.spec.rollout.paused:
        return None
    return outcomes.wait(situation, Reason.PAUSED, "spec.rollout.paused is true")


def the_step_is_young(situation: Situation) -> Outcome | None:
    """Every step lasts its minimum time."""
    if situation.step is None:
        return None
    if situation.passed(situation.rollout.serving_since) >= situation.step.minimum_seconds:
        return None
    message = f"the step lasts at least {situation.step.minimum_seconds} s"
    return outcomes.wait(situation, Reason.WAITING_FOR_TIME, message)


def data_are_missing(situation: Situation) -> Outcome | None:
    """Ignorance is neither success nor failure: the step waits, and at its deadline the declared policy says."""
    missing = _missing(situation)
    if missing is None:
        return None
    reason = Reason.METRICS_UNAVAILABLE if missing.verdict is Verdict.PROVIDER_ERROR else Reason.WAITING_FOR_REQUESTS
    message = f"{missing.objective.name}, {missing.message}"
    if situation.passed(situation.rollout.serving_since) < situation.spec.rollout.step_deadline_seconds:
        return outcomes.wait(situation, reason, message)
    at_deadline = f"{message} after {situation.spec.rollout.step_deadline_seconds} s"
    match situation.spec.rollout.on_insufficient_data:
        case specs.OnInsufficientData.HOLD:
            return outcomes.wait(situation, Reason.INSUFFICIENT_DATA, at_deadline, stalled=True)
        case specs.OnInsufficientData.ROLL_BACK if situation.enforces:
            return outcomes.rolled_back(situation, Reason.INSUFFICIENT_DATA, at_deadline)
        case _:
            return None


def approval_is_missing(situation: Situation) -> Outcome | None:
    """A step that needs a person's approval has passed everything else."""
    if situation.step is None or situation.step.approval is not specs.Approval.REQUIRED:
        return None
    if situation.levers.approves(situation.candidate or "", situation.rollout.step):
        return None
    wanted = f"{levers.APPROVE}={situation.candidate}/{situation.rollout.step + 1}"
    return outcomes.wait(
        situation, Reason.WAITING_FOR_APPROVAL, f"the step passed and waits for the annotation {wanted}"
    )


def _missing(situation: Situation) -> Judgement | None:
    """Returns a judgement without enough data to pass; what only alerts holds nothing up."""
    unknown = {Verdict.PROVIDER_ERROR, Verdict.INSUFFICIENT_DATA}
    return next(
        (
            one
            for one in situation.judgements
            if one.verdict in unknown and one.objective.action is not specs.Action.ALERT
        ),
        None,
    )
