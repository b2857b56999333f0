"""The answers that rules give: each builds the state that follows and the words to tell it."""

import dataclasses
from typing import Any

from kedge.api.conditions import Reason
from kedge.api.statuses import RejectedRevision, RolloutStatus
from kedge.decide import counting, times
from kedge.decide.situations import Event, EventType, Outcome, Phase, Situation
from kedge.desired import plans
from kedge.observe.snapshot import Trouble

MESSAGE_LIMIT = 1000
"""Characters of a message that is kept in status."""


def stay(
    situation: Situation, reason: Reason, message: str, *, stalled: bool = False, degraded: bool = False
) -> Outcome:
    """Returns the present state, with what this poll added to the evidence."""
    return Outcome(
        stable=situation.stable,
        candidate=situation.candidate,
        previous=situation.status.previous_revision,
        rejected=situation.status.rejected_revisions,
        rollout=None if situation.status.rollout is None else changed(situation),
        reason=reason,
        message=message,
        stalled=stalled,
        degraded=degraded,
    )


def with_rollout(
    situation: Situation,
    rollout: RolloutStatus,
    reason: Reason,
    message: str,
    *,
    events: tuple[Event, ...] = (),
    moved: bool = False,
    stalled: bool = False,
) -> Outcome:
    """Returns the present state with another state of its rollout."""
    stayed = stay(situation, reason, message, stalled=stalled, degraded=stalled)
    return dataclasses.replace(stayed, rollout=rollout, events=events, moved=moved)


def ended(situation: Situation, reason: Reason, message: str, *, events: tuple[Event, ...]) -> Outcome:
    """Returns the present state without a rollout: neither a candidate nor a revision to go back to."""
    stayed = stay(situation, reason, message)
    return dataclasses.replace(stayed, candidate=None, previous=None, rollout=None, events=events, moved=True)


def wait(situation: Situation, reason: Reason, message: str, *, stalled: bool = False) -> Outcome:
    """Returns the present state, which says what it waits for."""
    rollout = changed(situation, waiting_for=reason)
    return with_rollout(situation, rollout, reason, at_weight(situation, message), stalled=stalled)


def changed(situation: Situation, **changes: Any) -> RolloutStatus:
    """Returns the rollout with these changes, and with what this poll added to the evidence."""
    return situation.rollout.model_copy(update={"memory": situation.memory, **changes})


def passed(situation: Situation) -> Event:
    """Returns the Event of a step that passed, with the evidence."""
    evidence = "; ".join(f"{one.objective.name}: {one.verdict}, {one.message}" for one in situation.judgements)
    return Event(
        EventType.NORMAL,
        Reason.STEP_PASSED,
        f"{situation.candidate} passed at weight {situation.rollout.weight_percent} %: {evidence}",
    )


def at_step(situation: Situation, index: int, *, events: tuple[Event, ...] = ()) -> Outcome:
    """Returns the state in which the step of this index begins."""
    step = situation.spec.rollout.steps[index]
    rollout = changed(
        situation,
        phase=Phase.STEP,
        step=index,
        weight_percent=step.weight_percent,
        achieved_percent=None,
        phase_started_at=times.text(situation.now),
        serving_since=None,
        deadline_at=times.text(situation.now + situation.spec.rollout.progress_deadline_seconds),
        waiting_for=Reason.WAITING_FOR_REPLICAS,
        memory=counting.begin_step(situation.memory),
    )
    message = (
        f"{situation.candidate} takes {step.weight_percent} % of requests"
        f" (step {index + 1} of {len(situation.spec.rollout.steps)})"
    )
    event = Event(EventType.NORMAL, Reason.STEP_STARTED, message)
    return with_rollout(situation, rollout, Reason.STEP_STARTED, message, events=(*events, event), moved=True)


def promoted(situation: Situation) -> Outcome:
    """Returns the state in which the candidate is the stable revision, guarded if there is one to go back to."""
    message = f"{situation.candidate} is the stable revision"
    event = Event(EventType.NORMAL, Reason.PROMOTED, message)
    promoted = dataclasses.replace(
        ended(situation, Reason.PROMOTED, message, events=(event,)), stable=situation.candidate
    )
    guard = situation.spec.rollout.guard
    if situation.stable is None or guard.duration_seconds == 0:
        return promoted
    return dataclasses.replace(
        promoted,
        previous=situation.stable,
        rollout=changed(
            situation,
            phase=Phase.GUARD,
            weight_percent=plans.FULL_WEIGHT,
            phase_started_at=times.text(situation.now),
            serving_since=times.text(situation.now),
            deadline_at=times.text(situation.now + guard.duration_seconds),
            waiting_for=Reason.GUARDING,
            # What was compared of the candidate is no part of the watch that begins.
            memory=counting.begin_step(situation.memory).model_copy(update={"drifts": ()}),
        ),
    )


def cancelled(situation: Situation) -> Outcome:
    """Returns the state without the candidate, which is not rejected."""
    message = f"{situation.candidate} is not declared any more"
    event = Event(EventType.NORMAL, Reason.ROLLOUT_CANCELLED, message)
    return ended(situation, Reason.ROLLOUT_CANCELLED, message, events=(event,))


def rolled_back(situation: Situation, reason: Reason, message: str, *, objective: str | None = None) -> Outcome:
    """Returns the state in which the judged revision is rejected and the one before it serves."""
    serving = situation.status.previous_revision if situation.guarded else situation.stable
    rejected = RejectedRevision(
        revision=situation.judged or "",
        time=times.to_the_second(situation.now),
        reason=reason,
        message=at_weight(situation, message)[:MESSAGE_LIMIT],
        objective=objective,
        retry_token=situation.levers.retry,
    )
    kept = (*situation.status.rejected_revisions, rejected)[-situation.spec.rollout.history_limit :]
    told = f"serving {serving}; rejected {rejected.revision}: {rejected.message}"
    events = (
        Event(EventType.WARNING, reason, f"{rejected.revision}: {rejected.message}"),
        Event(EventType.WARNING, Reason.ROLLED_BACK, told),
    )
    return dataclasses.replace(
        ended(situation, reason, told, events=events), stable=serving, rejected=kept, stalled=True, degraded=True
    )


def with_trouble(situation: Situation, message: str) -> str:
    """Returns the message with what a pod of the candidate says, if one says anything."""
    pods = situation.snapshot.pods_of(situation.candidate)
    trouble: Trouble | None = next((pod.trouble for pod in pods if pod.trouble), None)
    return f"{message}: {trouble.message}" if trouble else message


def at_weight(situation: Situation, message: str) -> str:
    """Returns the message with where the rollout was."""
    match situation.rollout.phase:
        case Phase.PREFLIGHT:
            return f"{message}, in preflight"
        case Phase.PROMOTION:
            return f"{message}, at promotion"
        case Phase.GUARD:
            return f"{message}, after promotion"
        case _:
            return f"{message}, at weight {situation.rollout.weight_percent} %"


def not_ready_in_time(situation: Situation) -> str:
    """Returns the sentence about pods that came too late."""
    deadline = situation.spec.rollout.progress_deadline_seconds
    return with_trouble(situation, f"{situation.ready} of {situation.wanted} pods were ready within {deadline} s")
