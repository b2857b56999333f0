"""Rules about what the spec declares: rest, rejection, a new rollout, and the very first revision."""

import dataclasses

from kedge.api import levers
from kedge.api.conditions import Reason
from kedge.api.statuses import RejectedRevision, RolloutStatus
from kedge.decide import times
from kedge.decide.rules import outcomes
from kedge.decide.situations import Event, EventType, Outcome, Phase, Situation


def a_name_is_taken(situation: Situation) -> Outcome | None:
    """What is not Kedge's is not touched: nothing goes on until the name is free."""
    if not situation.snapshot.conflicts:
        return None
    taken = ", ".join(situation.snapshot.conflicts)
    return outcomes.stay(
        situation,
        Reason.NAME_CONFLICT,
        f"{taken} exists and belongs to somebody else: delete or rename it, or rename this ModelDeployment",
        stalled=True,
        degraded=True,
    )


def the_declared_revision_is_stable(situation: Situation) -> Outcome | None:
    """There is nothing to roll out; a rollout that was under way is cancelled."""
    if situation.stable is None or situation.declared != situation.stable:
        return None
    if situation.candidate is not None:
        return outcomes.cancelled(situation)
    ready, replicas = situation.snapshot.ready(situation.stable), situation.spec.replicas
    guarded = f", and {situation.status.previous_revision} can still take over" if situation.guarded else ""
    if ready >= replicas:
        message = f"serving {situation.stable} with {ready} of {replicas} replicas ready{guarded}"
        return outcomes.stay(situation, Reason.STABLE, message)
    trouble = next(
        (pod.trouble for pod in situation.snapshot.pods_of(situation.stable) if pod.trouble and not pod.ready), None
    )
    because = f": {trouble.message}" if trouble else ""
    return outcomes.stay(
        situation,
        Reason.REPLICAS_UNAVAILABLE,
        f"serving {situation.stable} with {ready} of {replicas} replicas ready{because}",
        degraded=trouble is not None,
    )


def the_declared_revision_was_rejected(situation: Situation) -> Outcome | None:
    """A rejected revision is not tried again by itself."""
    rejected = _rejection(situation)
    if rejected is None:
        return None
    if situation.candidate is not None:
        return outcomes.cancelled(situation)
    return outcomes.stay(
        situation,
        Reason(rejected.reason),
        f"serving {situation.stable}; rejected {rejected.revision}: {rejected.message}",
        stalled=True,
        degraded=True,
    )


def a_retry_is_asked_for(situation: Situation) -> Outcome | None:
    """A new token asks for the rejected revision once more."""
    rejected = _rejection(situation)
    if rejected is None or situation.levers.retry in {"", rejected.retry_token}:
        return None
    message = f"{rejected.revision} is tried again, as the annotation {levers.RETRY} asks"
    return dataclasses.replace(
        outcomes.stay(situation, Reason.RETRIED, message),
        rejected=tuple(one for one in situation.status.rejected_revisions if one is not rejected),
        events=(Event(EventType.NORMAL, Reason.RETRIED, message),),
        moved=True,
    )


def another_revision_is_declared(situation: Situation) -> Outcome | None:
    """The user has moved on: the present candidate leaves before the next one comes."""
    if situation.candidate is None or situation.candidate == situation.declared:
        return None
    return outcomes.cancelled(situation)


def a_new_rollout_is_paused(situation: Situation) -> Outcome | None:
    """No rollout begins while they are paused."""
    if situation.candidate is not None or situation.stable is None or not situation.spec.rollout.paused:
        return None
    message = f"serving {situation.stable}; {situation.declared} waits while spec.rollout.paused is true"
    return outcomes.stay(situation, Reason.PAUSED, message)


def a_new_revision_is_declared(situation: Situation) -> Outcome | None:
    """A rollout begins with pods that no user reaches."""
    if situation.candidate is not None:
        return None
    message = f"rolling out {situation.declared}" + (f" beside {situation.stable}" if situation.stable else "")
    now = times.text(situation.now)
    return Outcome(
        stable=situation.stable,
        candidate=situation.declared,
        previous=None,
        rejected=situation.status.rejected_revisions,
        rollout=RolloutStatus(
            phase=Phase.PREFLIGHT,
            started_at=now,
            phase_started_at=now,
            deadline_at=times.text(situation.now + situation.spec.rollout.progress_deadline_seconds),
            waiting_for=Reason.WAITING_FOR_REPLICAS,
        ),
        reason=Reason.PREFLIGHT,
        message=message,
        events=(Event(EventType.NORMAL, Reason.ROLLOUT_STARTED, message),),
        moved=True,
    )


def the_first_revision_serves(situation: Situation) -> Outcome | None:
    """With nothing to fall back to, the first pod that is ready is better than none."""
    if situation.stable is not None or situation.ready == 0:
        return None
    return outcomes.promoted(situation)


def the_first_revision_is_awaited(situation: Situation) -> Outcome | None:
    """Nothing serves yet, so nothing is taken back: it is told what is wrong, and waited for."""
    if situation.stable is not None:
        return None
    if situation.trouble is not None:
        return outcomes.wait(situation, situation.trouble.reason, situation.trouble.message, stalled=True)
    if situation.pods_are_late:
        return outcomes.wait(
            situation, Reason.PROGRESS_DEADLINE_EXCEEDED, outcomes.not_ready_in_time(situation), stalled=True
        )
    return outcomes.wait(
        situation, Reason.WAITING_FOR_REPLICAS, outcomes.with_trouble(situation, "no pod is ready yet")
    )


def _rejection(situation: Situation) -> RejectedRevision | None:
    """Returns the rejection of the declared revision, if it was rejected."""
    rejections = situation.status.rejected_revisions
    return next((one for one in rejections if one.revision == situation.declared), None)
