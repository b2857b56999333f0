"""What a rollout's record becomes with each decision: a pure fold over inputs and decisions.

Replay folds the same way over what it derives again, so whatever stands in a record can be checked.
"""

import dataclasses

from kedge.api import records
from kedge.api.conditions import Reason
from kedge.api.levers import Levers
from kedge.api.records import Gap, Outcome, Period, Record, RecordedApproval, RecordedStep, RecordedVerdict
from kedge.api.specs import REQUESTS, Approval
from kedge.api.statuses import ModelDeploymentStatus, RolloutStatus
from kedge.decide import counting, decisions, differences, journals, series, times
from kedge.decide.decisions import Decision, Input
from kedge.decide.journals import Beginning, Journal
from kedge.decide.situations import Phase
from kedge.desired import names, plans

UNSEEN = "The operator did not run, another one acted, or something else wrote the status."
ROOM_BYTES = 16 * 1024
"""Of a record's size that is left to its metadata."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """Which rollout or guard a decision belongs to."""

    period: Period
    revision: str
    """The revision that is judged."""
    started_at: str


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A record that is being written."""

    record: Record
    """All of it but the journal."""
    journal: Journal
    last: str
    """Digest of the status that the last decision led to."""
    is_news: bool = True
    """Whether something is in it that should be stored now."""
    is_resumed: bool = False
    """Whether it was read back, so that a new segment begins."""

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return Subject(self.record.period, self.record.candidate, self.record.started_at)

    @property
    def is_to_be_kept(self) -> bool:
        """Whether it is worth a record: a guard is only when it has ended in a rollback."""
        return self.record.period is Period.ROLLOUT or self.record.outcome is not None

    def stored(self) -> Record:
        """Returns the whole record, within its bound."""
        in_clear = len(self.record.model_dump_json(by_alias=True, exclude_none=True))
        room = max(0, records.SIZE_LIMIT_BYTES - ROOM_BYTES - in_clear)
        return self.record.model_copy(update={"journal": self.journal.stored(room)})


def subject_of(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Subject | None:
    """Returns what a decision that led from one status to the other belongs to, or None outside rollouts."""
    if before.rollout is not None and before.rollout.phase == Phase.GUARD:
        return Subject(Period.GUARD, before.stable_revision or "", before.rollout.phase_started_at)
    if before.rollout is not None:
        return Subject(Period.ROLLOUT, before.candidate_revision or "", before.rollout.started_at)
    if after.rollout is not None:
        return Subject(Period.ROLLOUT, after.candidate_revision or "", after.rollout.started_at)
    return None


def resumed(record: Record) -> Recording:
    """Returns the recording of a record that was read back."""
    cleared = record.model_copy(update={"journal": records.StoredJournal()})
    journal, last = journals.resumed(record.journal), journals.last_status(record.journal)
    return Recording(cleared, journal, last, is_news=False, is_resumed=True)


def advance(recording: Recording | None, given: Input, decision: Decision) -> Recording | None:
    """Returns the recording after one more decision, or None when there is nothing to record.

    `recording` is that of the decision before, of this rollout or of the one before it.
    """
    subject = subject_of(given.status, decision.status)
    if subject is None:
        return None
    follows = recording is not None and recording.last == differences.digest(given.status.to_json())
    if recording is None or recording.subject != subject or recording.record.outcome is not None:
        starts = given.status.rollout is None or follows
        return recorded(None, given, decision, Beginning.START if starts else Beginning.GAP)
    beginning = None
    if not follows:
        beginning = Beginning.GAP
    elif recording.is_resumed:
        beginning = Beginning.RESTART
    elif recording.journal.is_full:
        beginning = Beginning.SIZE
    return recorded(recording, given, decision, beginning)


def recorded(
    recording: Recording | None, given: Input, decision: Decision, beginning: Beginning | None
) -> Recording | None:
    """Returns the recording with this decision, in a new segment of the journal if that begins here."""
    subject = subject_of(given.status, decision.status)
    if subject is None:
        return None
    record = folded(recording.record if recording else None, subject, given, decision, beginning)
    if record is None:
        return None
    journal = recording.journal if recording else Journal()
    if beginning is not None:
        journal = journal.begun(beginning, given.status)
    journal = journal.added(given, decision)
    return Recording(
        record=record,
        journal=journal,
        last=journal.led_to,
        is_news=decision.moved or beginning is not None or (recording is not None and recording.is_news),
    )


def folded(
    record: Record | None, subject: Subject, given: Input, decision: Decision, beginning: Beginning | None
) -> Record | None:
    """Returns what stands in clear after one more decision; None when a guard ended well, which leaves no record."""
    record = record or _begun(subject, given, decision)
    before, after = given.status.rollout, _same_rollout(subject, decision.status)
    now = times.text(given.now)
    gaps = record.gaps
    if beginning is Beginning.GAP:
        gaps = (*gaps, Gap(since=record.recorded_until, until=now, cause=UNSEEN))[-records.MOST_GAPS :]
    # A guard or rollout whose beginning was not seen is found in the middle of a step.
    steps = _known(record.steps, before) if before is not None else record.steps
    goes_on = after is not None and (before is None or _place(before) == _place(after))
    if not goes_on:
        steps = (*steps[:-1], _ended(steps[-1], given, decision))
    if after is not None:
        steps = _known(steps, after)
        steps = (*steps[:-1], steps[-1].model_copy(update={"serving_since": after.serving_since}))
    record = record.model_copy(
        update={
            "recorded_until": now,
            "gaps": gaps,
            "steps": steps[-records.MOST_STEPS :],
            "approvals": (*record.approvals, *_approval(given, after))[-records.MOST_STEPS :],
            "objectives": decision.status.objectives,
            "series": series.added(record.series, now, decision.judgements, ended=after is None),
        }
    )
    return record if after is not None else _finished(record, given, decision)


def closed(record: Record, status: ModelDeploymentStatus, *, now: float) -> Record:
    """Returns a record that was left open, closed by what status says: the end itself was not seen."""
    rejected = next((one for one in status.rejected_revisions if one.revision == record.candidate), None)
    ended_at = times.text(now)
    outcome, reason, message = Outcome.CANCELLED, Reason.ROLLOUT_CANCELLED.value, "another revision was declared"
    if status.stable_revision == record.candidate:
        outcome, reason, message = Outcome.PROMOTED, Reason.PROMOTED.value, "it is the stable revision"
        if status.rollout is not None and status.rollout.phase == Phase.GUARD:
            ended_at = status.rollout.phase_started_at
    elif rejected is not None:
        outcome, reason, message = Outcome.ROLLED_BACK, rejected.reason, rejected.message
        ended_at = rejected.time
    cause = f"The end was not seen; the status tells it. {UNSEEN}"
    gap = Gap(since=record.recorded_until, until=ended_at, cause=cause)
    return record.model_copy(
        update={
            "ended_at": ended_at,
            "outcome": outcome,
            "reason": reason,
            "message": message,
            "gaps": (*record.gaps, gap)[-records.MOST_GAPS :],
        }
    )


def end_was_seen(record: Record) -> bool:
    """Tells whether the decision that ended the rollout is in the journal."""
    return not record.gaps or record.gaps[-1].since != record.recorded_until


def _begun(subject: Subject, given: Input, decision: Decision) -> Record:
    status = given.status if given.status.rollout is not None else decision.status
    revision = given.snapshot.revisions.get(subject.revision)
    model = given.spec.model if given.declared == subject.revision else revision and revision.model
    return Record(
        model_deployment=names.selected_owner(given.selector),
        period=subject.period,
        candidate=subject.revision,
        stable=status.previous_revision if subject.period is Period.GUARD else status.stable_revision,
        model_uri=model.uri if model else None,
        model_sha256=model.sha256 if model else None,
        spec_sha256=differences.sha256(given.spec.to_json()),
        started_at=subject.started_at,
        recorded_until=subject.started_at,
    )


def _same_rollout(subject: Subject, status: ModelDeploymentStatus) -> RolloutStatus | None:
    """Returns the rollout after the decision if it is still the same one, or None when that ended."""
    rollout = status.rollout
    if rollout is None:
        return None
    guards = rollout.phase == Phase.GUARD
    return rollout if guards == (subject.period is Period.GUARD) else None


def _place(rollout: RolloutStatus) -> tuple[str, int, str]:
    return rollout.phase, rollout.step, rollout.phase_started_at


def _known(steps: tuple[RecordedStep, ...], rollout: RolloutStatus) -> tuple[RecordedStep, ...]:
    """Returns the steps with the rollout's present one as the last."""
    if steps and steps[-1].started_at == rollout.phase_started_at and steps[-1].phase == rollout.phase:
        return steps
    at_step = rollout.phase == Phase.STEP
    weights = {Phase.PREFLIGHT: 0, Phase.STEP: rollout.weight_percent}
    return (
        *steps,
        RecordedStep(
            phase=rollout.phase,
            step=rollout.step + 1 if at_step else None,
            weight_percent=weights.get(Phase(rollout.phase), plans.FULL_WEIGHT),
            started_at=rollout.phase_started_at,
            serving_since=rollout.serving_since,
        ),
    )


def _ended(step: RecordedStep, given: Input, decision: Decision) -> RecordedStep:
    status = given.status
    guards = step.phase == Phase.GUARD
    judged = (status.stable_revision if guards else status.candidate_revision) or ""
    compared = None if guards else status.stable_revision
    memory = decision.memory
    served = step.serving_since is not None
    return step.model_copy(
        update={
            "ended_at": times.text(given.now),
            "achieved_percent": decisions.achieved_percent(memory, compared, judged) if served else None,
            "requests": counting.of(memory, REQUESTS.key, judged).step_total if served else 0,
            "verdicts": tuple(
                RecordedVerdict(
                    name=verdict.name,
                    verdict=verdict.verdict,
                    requests=verdict.requests,
                    bad=verdict.bad,
                    message=verdict.message[: records.MESSAGE_LIMIT],
                )
                for verdict in (judgement.to_status() for judgement in decision.judgements)
            ),
        }
    )


def _approval(given: Input, after: RolloutStatus | None) -> tuple[RecordedApproval, ...]:
    """Returns the approval by which a step passed with this decision, if one did."""
    before, levers = given.status.rollout, given.levers
    if before is None or after is None or before.phase != Phase.STEP or _place(before) == _place(after):
        return ()
    step = plans.step_at(given.spec.rollout, before.step)
    if step is None or step.approval is not Approval.REQUIRED:
        return ()
    return (RecordedApproval(step=before.step + 1, time=times.text(given.now), manager=_program(levers.approved_by)),)


def _finished(record: Record, given: Input, decision: Decision) -> Record | None:
    after = decision.status
    was_rejected = after.is_rejected(record.candidate) and not given.status.is_rejected(record.candidate)
    if was_rejected:
        outcome = Outcome.ROLLED_BACK
    elif record.period is Period.GUARD:
        return None
    else:
        promoted = after.stable_revision == record.candidate
        outcome = Outcome.PROMOTED if promoted else Outcome.CANCELLED
    return record.model_copy(
        update={
            "ended_at": times.text(given.now),
            "outcome": outcome,
            "reason": decision.reason.value,
            "message": (after.message or "")[: records.END_MESSAGE_LIMIT],
            "aborted_by": _aborted_by(given.levers, decision),
        }
    )


def _aborted_by(levers: Levers, decision: Decision) -> str | None:
    return _program(levers.aborted_by) or None if decision.reason is Reason.ABORTED else None


def _program(manager: str) -> str:
    return manager[:128]
