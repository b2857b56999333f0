"""Rules that move a rollout on, each behind all the gates before it in the policy."""

from kedge.api.conditions import Reason
from kedge.decide import counting, times
from kedge.decide.rules import outcomes
from kedge.decide.situations import Event, EventType, Outcome, Phase, Situation


def the_first_step_begins(situation: Situation) -> Outcome | None:
    """The candidate has shown that it can serve: users may reach it."""
    if situation.rollout.phase != Phase.PREFLIGHT:
        return None
    return outcomes.at_step(situation, 0)


def the_guard_ends(situation: Situation) -> Outcome | None:
    """The guard's time is over, or another revision is declared: the previous revision may go."""
    if not situation.guarded:
        return None
    over = situation.passed(situation.rollout.phase_started_at) >= situation.spec.rollout.guard.duration_seconds
    if not over and situation.declared == situation.stable:
        return None
    message = f"{situation.stable} kept its objectives for as long as it was guarded"
    if not over:
        message = f"the guard of {situation.stable} ends since another revision is declared"
    event = Event(EventType.NORMAL, Reason.GUARD_ENDED, message)
    return outcomes.ended(situation, Reason.GUARD_ENDED, message, events=(event,))


def the_candidate_takes_over(situation: Situation) -> Outcome | None:
    """All of its pods are ready, so the judged pods become the stable ones."""
    if situation.rollout.phase != Phase.PROMOTION:
        return None
    return outcomes.promoted(situation)


def the_step_starts_to_count(situation: Situation) -> Outcome | None:
    """All pods of the step are ready: its times and requests count from here."""
    if situation.rollout.serving_since is not None:
        return None
    deadline = situation.now + situation.spec.rollout.step_deadline_seconds
    rollout = outcomes.changed(
        situation,
        serving_since=times.text(situation.now),
        deadline_at=times.text(deadline),
        memory=counting.begin_step(situation.memory),
    )
    return outcomes.with_rollout(
        situation, rollout, Reason.WAITING_FOR_REQUESTS, "all pods of the step are ready", moved=True
    )


def the_next_step_begins(situation: Situation) -> Outcome | None:
    """Every gate has passed."""
    if situation.rollout.step + 1 >= len(situation.spec.rollout.steps):
        return None
    return outcomes.at_step(situation, situation.rollout.step + 1, events=(outcomes.passed(situation),))


def promotion_begins(situation: Situation) -> Outcome | None:
    """Every step has passed: the candidate grows to all replicas."""
    message = f"{situation.candidate} passed every step and takes all traffic"
    rollout = outcomes.changed(
        situation,
        phase=Phase.PROMOTION,
        phase_started_at=times.text(situation.now),
        serving_since=None,
        deadline_at=times.text(situation.now + situation.spec.rollout.progress_deadline_seconds),
    )
    events = (outcomes.passed(situation), Event(EventType.NORMAL, Reason.PROMOTING, message))
    return outcomes.with_rollout(situation, rollout, Reason.PROMOTING, message, events=events, moved=True)
