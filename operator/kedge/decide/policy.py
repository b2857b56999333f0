"""The policy of a rollout: one rule a function, in an order that reads as the policy itself.

The first rule that answers decides. A rule looks at the situation only, and answers with the state that
follows; it never does anything.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from kedge.api import levers, specs
from kedge.api.conditions import Reason
from kedge.api.statuses import RejectedRevision, RolloutStatus
from kedge.decide import counting, times
from kedge.decide.situations import Event, EventType, Outcome, Phase, Situation
from kedge.decide.verdicts import Judgement, Verdict
from kedge.desired import plans
from kedge.observe.snapshot import Trouble

Rule = Callable[[Situation], Outcome | None]
MESSAGE_LIMIT = 1000
"""Characters of a message that is kept in status."""


def a_name_is_taken(situation: Situation) -> Outcome | None:
    """What is not Kedge's is not touched: nothing goes on until the name is free."""
    if not situation.snapshot.conflicts:
        return None
    taken = ", ".join(situation.snapshot.conflicts)
    return _stay(
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
        return _cancelled(situation)
    ready, replicas = situation.snapshot.ready(situation.stable), situation.spec.replicas
    guarded = f", and {situation.status.previous_revision} can still take over" if situation.guarded else ""
    if ready >= replicas:
        message = f"serving {situation.stable} with {ready} of {replicas} replicas ready{guarded}"
        return _stay(situation, Reason.STABLE, message)
    trouble = next(
        (pod.trouble for pod in situation.snapshot.pods_of(situation.stable) if pod.trouble and not pod.ready), None
    )
    because = f": {trouble.message}" if trouble else ""
    return _stay(
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
        return _cancelled(situation)
    return _stay(
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
        _stay(situation, Reason.RETRIED, message),
        rejected=tuple(one for one in situation.status.rejected_revisions if one is not rejected),
        events=(Event(EventType.NORMAL, Reason.RETRIED, message),),
        moved=True,
    )


def another_revision_is_declared(situation: Situation) -> Outcome | None:
    """The user has moved on: the present candidate leaves before the next one comes."""
    if situation.candidate is None or situation.candidate == situation.declared:
        return None
    return _cancelled(situation)


def a_new_rollout_is_paused(situation: Situation) -> Outcome | None:
    """No rollout begins while they are paused."""
    if situation.candidate is not None or situation.stable is None or not situation.spec.rollout.paused:
        return None
    message = f"serving {situation.stable}; {situation.declared} waits while spec.rollout.paused is true"
    return _stay(situation, Reason.PAUSED, message)


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
    return _promoted(situation)


def the_first_revision_is_awaited(situation: Situation) -> Outcome | None:
    """Nothing serves yet, so nothing is taken back: it is told what is wrong, and waited for."""
    if situation.stable is not None:
        return None
    if situation.trouble is not None:
        return _wait(situation, situation.trouble.reason, situation.trouble.message, stalled=True)
    if _is_late(situation):
        return _wait(situation, Reason.PROGRESS_DEADLINE_EXCEEDED, _not_ready_in_time(situation), stalled=True)
    return _wait(situation, Reason.WAITING_FOR_REPLICAS, _with_trouble(situation, "no pod is ready yet"))


def the_user_aborts(situation: Situation) -> Outcome | None:
    """A person takes the revision back, whatever the verdicts say."""
    if situation.judged is None or not _can_go_back(situation) or situation.levers.abort != situation.judged:
        return None
    message = f"taken back by the annotation {levers.ABORT}"
    return _rolled_back(situation, Reason.ABORTED, _at_weight(situation, message))


def the_pods_fail(situation: Situation) -> Outcome | None:
    """Pods that cannot serve are a failure of their revision."""
    if situation.judged is None or not _can_go_back(situation):
        return None
    if situation.trouble is None or not situation.enforces:
        return None
    return _rolled_back(situation, situation.trouble.reason, _at_weight(situation, situation.trouble.message))


def an_objective_fails(situation: Situation) -> Outcome | None:
    """Measured requests contradict an objective that may roll back."""
    failed = _failed(situation, specs.Action.ROLLBACK)
    if failed is None or not situation.enforces or not _can_go_back(situation):
        return None
    message = _at_weight(situation, f"{failed.objective.name}, {failed.message}")
    return _rolled_back(situation, Reason.OBJECTIVE_FAILED, message, objective=failed.objective.name)


def the_candidates_pods_are_late(situation: Situation) -> Outcome | None:
    """Every wait for pods has a deadline."""
    if situation.ready >= situation.wanted or not _is_late(situation):
        return None
    message = _not_ready_in_time(situation)
    if not situation.enforces:
        return _wait(situation, Reason.PROGRESS_DEADLINE_EXCEEDED, message, stalled=True)
    return _rolled_back(situation, Reason.PROGRESS_DEADLINE_EXCEEDED, _at_weight(situation, message))


def pods_are_missing(situation: Situation) -> Outcome | None:
    """The present phase needs more pods than are ready."""
    if situation.ready >= situation.wanted:
        return None
    message = f"{situation.ready} of {situation.wanted} candidate pods are ready"
    return _wait(situation, Reason.WAITING_FOR_REPLICAS, _with_trouble(situation, message))


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
    return _wait(situation, Reason.WAITING_FOR_REPLICAS, f"pods of another revision are still there: {others[0]}")


def the_first_step_begins(situation: Situation) -> Outcome | None:
    """The candidate has shown that it can serve: users may reach it."""
    if situation.rollout.phase != Phase.PREFLIGHT:
        return None
    return _at_step(situation, 0)


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
    return dataclasses.replace(
        _stay(situation, Reason.GUARD_ENDED, message),
        previous=None,
        rollout=None,
        events=(Event(EventType.NORMAL, Reason.GUARD_ENDED, message),),
        moved=True,
    )


def the_candidate_takes_over(situation: Situation) -> Outcome | None:
    """All of its pods are ready, so the judged pods become the stable ones."""
    if situation.rollout.phase != Phase.PROMOTION:
        return None
    return _promoted(situation)


def the_step_starts_to_count(situation: Situation) -> Outcome | None:
    """All pods of the step are ready: its times and requests count from here."""
    if situation.rollout.serving_since is not None:
        return None
    deadline = situation.now + situation.spec.rollout.step_deadline_seconds
    rollout = _changed(
        situation,
        serving_since=times.text(situation.now),
        deadline_at=times.text(deadline),
        memory=counting.begin_step(situation.memory),
    )
    return _with_rollout(situation, rollout, Reason.WAITING_FOR_REQUESTS, "all pods of the step are ready", moved=True)


def an_objective_holds(situation: Situation) -> Outcome | None:
    """An objective whose action is Hold fails: the step stays until a person has decided."""
    failed = _failed(situation, specs.Action.HOLD)
    if failed is None:
        return None
    message = f"{failed.objective.name}, {failed.message}"
    return _wait(situation, Reason.OBJECTIVE_ON_HOLD, message, stalled=True)


def the_rollout_is_paused(situation: Situation) -> Outcome | None:
    """A pause holds the step; what fails still rolls back."""
    if not situation.spec.rollout.paused:
        return None
    return _wait(situation, Reason.PAUSED, "spec.rollout.paused is true")


def the_step_is_young(situation: Situation) -> Outcome | None:
    """Every step lasts its minimum time."""
    if situation.step is None:
        return None
    if situation.passed(situation.rollout.serving_since) >= situation.step.minimum_seconds:
        return None
    message = f"the step lasts at least {situation.step.minimum_seconds} s"
    return _wait(situation, Reason.WAITING_FOR_TIME, message)


def data_are_missing(situation: Situation) -> Outcome | None:
    """Ignorance is neither success nor failure: the step waits, and at its deadline the declared policy says."""
    missing = _missing(situation)
    if missing is None:
        return None
    reason = Reason.METRICS_UNAVAILABLE if missing.verdict is Verdict.PROVIDER_ERROR else Reason.WAITING_FOR_REQUESTS
    message = f"{missing.objective.name}, {missing.message}"
    if situation.passed(situation.rollout.serving_since) < situation.spec.rollout.step_deadline_seconds:
        return _wait(situation, reason, message)
    at_deadline = f"{message} after {situation.spec.rollout.step_deadline_seconds} s"
    match situation.spec.rollout.on_insufficient_data:
        case specs.OnInsufficientData.HOLD:
            return _wait(situation, Reason.INSUFFICIENT_DATA, at_deadline, stalled=True)
        case specs.OnInsufficientData.ROLL_BACK if situation.enforces:
            return _rolled_back(situation, Reason.INSUFFICIENT_DATA, _at_weight(situation, at_deadline))
        case _:
            return None


def approval_is_missing(situation: Situation) -> Outcome | None:
    """A step that needs a person's approval has passed everything else."""
    if situation.step is None or situation.step.approval is not specs.Approval.REQUIRED:
        return None
    if situation.levers.approves(situation.candidate or "", situation.rollout.step):
        return None
    wanted = f"{levers.APPROVE}={situation.candidate}/{situation.rollout.step + 1}"
    return _wait(situation, Reason.WAITING_FOR_APPROVAL, f"the step passed and waits for the annotation {wanted}")


def the_next_step_begins(situation: Situation) -> Outcome | None:
    """Every gate has passed."""
    if situation.rollout.step + 1 >= len(situation.spec.rollout.steps):
        return None
    return _at_step(situation, situation.rollout.step + 1, events=(_passed(situation),))


def promotion_begins(situation: Situation) -> Outcome | None:
    """Every step has passed: the candidate grows to all replicas."""
    message = f"{situation.candidate} passed every step and takes all traffic"
    rollout = _changed(
        situation,
        phase=Phase.PROMOTION,
        phase_started_at=times.text(situation.now),
        serving_since=None,
        deadline_at=times.text(situation.now + situation.spec.rollout.progress_deadline_seconds),
    )
    events = (_passed(situation), Event(EventType.NORMAL, Reason.PROMOTING, message))
    return _with_rollout(situation, rollout, Reason.PROMOTING, message, events=events, moved=True)


POLICY: tuple[Rule, ...] = (
    a_name_is_taken,
    the_user_aborts,
    the_pods_fail,
    an_objective_fails,
    the_guard_ends,
    the_declared_revision_is_stable,
    a_retry_is_asked_for,
    the_declared_revision_was_rejected,
    another_revision_is_declared,
    a_new_rollout_is_paused,
    a_new_revision_is_declared,
    the_first_revision_serves,
    the_first_revision_is_awaited,
    the_candidates_pods_are_late,
    pods_are_missing,
    other_pods_linger,
    the_first_step_begins,
    the_candidate_takes_over,
    the_step_starts_to_count,
    an_objective_holds,
    the_rollout_is_paused,
    the_step_is_young,
    data_are_missing,
    approval_is_missing,
    the_next_step_begins,
    promotion_begins,
)


def apply(situation: Situation) -> Outcome:
    """Returns the answer of the first rule that has one."""
    for rule in POLICY:
        outcome = rule(situation)
        if outcome is not None:
            return outcome
    raise AssertionError("the last rule always answers")


def _stay(
    situation: Situation, reason: Reason, message: str, *, stalled: bool = False, degraded: bool = False
) -> Outcome:
    return Outcome(
        stable=situation.stable,
        candidate=situation.candidate,
        previous=situation.status.previous_revision,
        rejected=situation.status.rejected_revisions,
        rollout=None if situation.status.rollout is None else _changed(situation),
        reason=reason,
        message=message,
        stalled=stalled,
        degraded=degraded,
    )


def _with_rollout(
    situation: Situation,
    rollout: RolloutStatus,
    reason: Reason,
    message: str,
    *,
    events: tuple[Event, ...] = (),
    moved: bool = False,
    stalled: bool = False,
) -> Outcome:
    stayed = _stay(situation, reason, message, stalled=stalled, degraded=stalled)
    return dataclasses.replace(stayed, rollout=rollout, events=events, moved=moved)


def _wait(situation: Situation, reason: Reason, message: str, *, stalled: bool = False) -> Outcome:
    rollout = _changed(situation, waiting_for=reason)
    return _with_rollout(situation, rollout, reason, _at_weight(situation, message), stalled=stalled)


def _changed(situation: Situation, **changes: Any) -> RolloutStatus:
    return situation.rollout.model_copy(update={"memory": situation.memory, **changes})


def _passed(situation: Situation) -> Event:
    """Returns the Event of a step that passed, with the evidence."""
    evidence = "; ".join(f"{one.objective.name}: {one.verdict}, {one.message}" for one in situation.judgements)
    return Event(
        EventType.NORMAL,
        Reason.STEP_PASSED,
        f"{situation.candidate} passed at weight {situation.rollout.weight_percent} %: {evidence}",
    )


def _at_step(situation: Situation, index: int, *, events: tuple[Event, ...] = ()) -> Outcome:
    step = situation.spec.rollout.steps[index]
    rollout = _changed(
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
    return _with_rollout(situation, rollout, Reason.STEP_STARTED, message, events=(*events, event), moved=True)


def _promoted(situation: Situation) -> Outcome:
    message = f"{situation.candidate} is the stable revision"
    promoted = Outcome(
        stable=situation.candidate,
        candidate=None,
        previous=None,
        rejected=situation.status.rejected_revisions,
        rollout=None,
        reason=Reason.PROMOTED,
        message=message,
        events=(Event(EventType.NORMAL, Reason.PROMOTED, message),),
        moved=True,
    )
    guard = situation.spec.rollout.guard
    if situation.stable is None or guard.duration_seconds == 0:
        return promoted
    return dataclasses.replace(
        promoted,
        previous=situation.stable,
        rollout=_changed(
            situation,
            phase=Phase.GUARD,
            weight_percent=plans.FULL_WEIGHT,
            phase_started_at=times.text(situation.now),
            serving_since=times.text(situation.now),
            deadline_at=times.text(situation.now + guard.duration_seconds),
            waiting_for=Reason.GUARDING,
            memory=counting.begin_step(situation.memory),
        ),
    )


def _cancelled(situation: Situation) -> Outcome:
    message = f"{situation.candidate} is not declared any more"
    return Outcome(
        stable=situation.stable,
        candidate=None,
        previous=None,
        rejected=situation.status.rejected_revisions,
        rollout=None,
        reason=Reason.ROLLOUT_CANCELLED,
        message=message,
        events=(Event(EventType.NORMAL, Reason.ROLLOUT_CANCELLED, message),),
        moved=True,
    )


def _can_go_back(situation: Situation) -> bool:
    """Tells whether there is a revision to go back to from the judged one."""
    return situation.status.previous_revision is not None if situation.guarded else situation.stable is not None


def _rolled_back(situation: Situation, reason: Reason, message: str, *, objective: str | None = None) -> Outcome:
    """Returns the state in which the judged revision is rejected and the one before it serves."""
    serving = situation.status.previous_revision if situation.guarded else situation.stable
    rejected = RejectedRevision(
        revision=situation.judged or "",
        time=times.to_the_second(situation.now),
        reason=reason,
        message=message[:MESSAGE_LIMIT],
        objective=objective,
        retry_token=situation.levers.retry,
    )
    kept = (*situation.status.rejected_revisions, rejected)[-situation.spec.rollout.history_limit :]
    told = f"serving {serving}; rejected {rejected.revision}: {rejected.message}"
    return Outcome(
        stable=serving,
        candidate=None,
        previous=None,
        rejected=kept,
        rollout=None,
        reason=reason,
        message=told,
        events=(
            Event(EventType.WARNING, reason, f"{rejected.revision}: {rejected.message}"),
            Event(EventType.WARNING, Reason.ROLLED_BACK, told),
        ),
        moved=True,
        stalled=True,
        degraded=True,
    )


def _rejection(situation: Situation) -> RejectedRevision | None:
    """Returns the rejection of the declared revision, if it was rejected."""
    rejections = situation.status.rejected_revisions
    return next((one for one in rejections if one.revision == situation.declared), None)


def _failed(situation: Situation, action: specs.Action) -> Judgement | None:
    return next((one for one in situation.judgements if one.fails and one.objective.action is action), None)


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


def _is_late(situation: Situation) -> bool:
    """Tells whether pods have been awaited for longer than the progress deadline.

    Before they serve, that counts from the start of the phase; after it, from when one stopped being ready.
    """
    deadline = situation.spec.rollout.progress_deadline_seconds
    if situation.rollout.serving_since is None:
        return situation.passed(situation.rollout.phase_started_at) >= deadline
    return any(
        pod.unready_since is not None and situation.now - pod.unready_since >= deadline
        for pod in situation.snapshot.pods_of(situation.candidate)
    )


def _not_ready_in_time(situation: Situation) -> str:
    deadline = situation.spec.rollout.progress_deadline_seconds
    return _with_trouble(situation, f"{situation.ready} of {situation.wanted} pods were ready within {deadline} s")


def _with_trouble(situation: Situation, message: str) -> str:
    """Returns the message with what a pod of the candidate says, if one says anything."""
    pods = situation.snapshot.pods_of(situation.candidate)
    trouble: Trouble | None = next((pod.trouble for pod in pods if pod.trouble), None)
    return f"{message}: {trouble.message}" if trouble else message


def _at_weight(situation: Situation, message: str) -> str:
    match situation.rollout.phase:
        case Phase.PREFLIGHT:
            return f"{message}, in preflight"
        case Phase.PROMOTION:
            return f"{message}, at promotion"
        case Phase.GUARD:
            return f"{message}, after promotion"
        case _:
            return f"{message}, at weight {situation.rollout.weight_percent} %"
