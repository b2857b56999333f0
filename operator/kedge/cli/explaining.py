"""`kedge explain`: what a ModelDeployment or a RolloutRecord says, as plain text of a hundred columns."""

import textwrap
from collections.abc import Iterator

from kedge.api.conditions import Reason
from kedge.api.records import Record, RecordedStep
from kedge.api.specs import ModelDeploymentSpec
from kedge.api.statuses import ObjectiveStatus, RejectedRevision, RolloutStatus
from kedge.cli import replays
from kedge.cli.levers import Model
from kedge.decide import times
from kedge.decide.situations import Phase
from kedge.desired import plans

COLUMNS = 100
LABEL = 13
"""Columns of the words that begin a paragraph."""


def model(found: Model, namespace: str | None) -> str:
    """Returns what a ModelDeployment says, and what a person can do about it."""
    where = f" in {namespace}" if namespace else ""
    command = f"{found.name} -n {namespace}" if namespace else found.name
    lines = [f"ModelDeployment {found.name}{where}", *_serving(found), *_rollout(found)]
    if found.status.objectives:
        judged = _judged(found)
        lines += ["", f"Objectives{f' of {judged}' if judged else ''}"]
        for objective in found.status.objectives:
            lines += _objective(objective)
    if found.status.rejected_revisions:
        lines += ["", "Rejected"]
        for rejected in found.status.rejected_revisions:
            lines += _rejected(rejected)
    if todo := list(_todo(found, command)):
        lines += ["", "What you can do", *(line for item in todo for line in _wrapped("  - ", item))]
    return "\n".join(lines)


def record(name: str, told: Record) -> str:
    """Returns what a RolloutRecord says."""
    beside = f" beside {told.stable}" if told.stable else ""
    lines = [
        f"RolloutRecord {name}",
        *_paragraph(told.period.value, f"{told.candidate}{beside} of {told.model_deployment}"),
        *_paragraph("Outcome", replays.outcome(told)),
        *_paragraph("Began", told.started_at),
        *_paragraph("Model", f"{told.model_uri or 'unknown'}, sha256 {told.model_sha256 or 'not declared'}"),
        *(_paragraph("Aborted by", told.aborted_by) if told.aborted_by else ()),
        "",
        "Steps",
    ]
    for step in told.steps:
        lines += _step(told, step)
    if told.objectives:
        lines += ["", "Objectives at the end" if told.outcome else "Objectives so far"]
        for objective in told.objectives:
            lines += _objective(objective)
    if lost := list(replays.missing(told)):
        lines += ["", "Not recorded", *(line for item in lost for line in _wrapped("  - ", item))]
    return "\n".join(lines)


def _serving(found: Model) -> Iterator[str]:
    status = found.status
    if status.observed_generation < 0:
        yield from _paragraph("Serving", "nothing: Kedge has not seen it yet. Is the operator running?")
        return
    ready = f"{status.ready_replicas} ready pods behind the Service, {found.spec.replicas} declared"
    serving = status.stable_revision or "nothing yet"
    yield from _paragraph("Serving", f"{serving}, {ready}")
    yield from _paragraph("Says", status.message or "nothing")


def _rollout(found: Model) -> Iterator[str]:
    status, rollout = found.status, found.status.rollout
    if rollout is None:
        yield from _paragraph("Rolling out", "nothing")
        return
    if rollout.phase == Phase.GUARD:
        yield from _paragraph(
            "Guarding",
            f"{status.stable_revision} since {rollout.phase_started_at} until {rollout.deadline_at};"
            f" {status.previous_revision} can take over",
        )
        return
    yield from _paragraph(
        "Rolling out", f"{status.candidate_revision}, {_place(found.spec, rollout)}, since {rollout.phase_started_at}"
    )
    yield from _paragraph("Waits for", f"{found.reason}, {_until(found, rollout)}")


def _until(found: Model, rollout: RolloutStatus) -> str:
    """Returns how long the rollout waits where it is."""
    declared = plans.step_at(found.spec.rollout, rollout.step)
    match found.reason:
        case Reason.WAITING_FOR_TIME if rollout.serving_since is not None and declared is not None:
            return f"until {times.text(times.seconds(rollout.serving_since) + declared.minimum_seconds)}"
        case Reason.WAITING_FOR_APPROVAL | Reason.PAUSED | Reason.OBJECTIVE_ON_HOLD | Reason.INSUFFICIENT_DATA:
            return "for as long as it takes"
        case Reason.WAITING_FOR_REQUESTS | Reason.METRICS_UNAVAILABLE:
            then = found.spec.rollout.on_insufficient_data
            return f"until {rollout.deadline_at}; then onInsufficientData says {then}"
        case _:
            return f"until {rollout.deadline_at} at the latest" if rollout.deadline_at else "no deadline"


def _place(spec: ModelDeploymentSpec, rollout: RolloutStatus) -> str:
    if rollout.phase != Phase.STEP:
        return f"{rollout.phase}"
    served = f" (served {rollout.achieved_percent} %)" if rollout.achieved_percent is not None else ""
    return f"step {rollout.step + 1} of {len(spec.rollout.steps)} at weight {rollout.weight_percent} %{served}"


def _judged(found: Model) -> str | None:
    """Returns the revision that the verdicts in status are about, as far as it can be told."""
    status = found.status
    if status.candidate_revision is not None:
        return status.candidate_revision
    if status.rejected_revisions and found.reason == status.rejected_revisions[-1].reason:
        return status.rejected_revisions[-1].revision
    return status.stable_revision


def _objective(objective: ObjectiveStatus) -> Iterator[str]:
    yield from _wrapped(f"  {objective.name}: ", f"{objective.verdict}, {objective.message}")
    for sentence in _evidence(objective):
        yield from _wrapped("      ", sentence)


def _evidence(objective: ObjectiveStatus) -> Iterator[str]:
    if objective.interval_percent is not None:
        low, high = objective.interval_percent
        yield (
            f"{objective.bad} bad of {objective.requests}: {objective.estimate_percent} %, between {low} and {high} %"
            f" at every look; design effect {objective.design_effect}"
        )
    if objective.distance is not None:
        least = objective.distance_threshold or "unknown, with so few"
        yield (
            f"distance {objective.distance} of {objective.histogram} over {objective.requests} rows, drift above"
            f" {least}; design effect {objective.design_effect}"
        )
    if objective.log_e_value is not None:
        spent = f", at a chance of {objective.alpha_percent} % of a false one" if objective.alpha_percent else ""
        yield f"log e-value {objective.log_e_value}, fails at {objective.log_threshold}{spent}"
    if objective.detectable_percent is not None:
        yield f"so many requests would have revealed {objective.detectable_percent} % bad ones (95 % probability)"


def _rejected(rejected: RejectedRevision) -> Iterator[str]:
    yield from _wrapped(f"  {rejected.revision}: ", f"{rejected.reason} at {rejected.time}: {rejected.message}")


def _todo(found: Model, command: str) -> Iterator[str]:
    status, rollout, declared = found.status, found.status.rollout, found.declared
    if status.is_rejected(declared):
        yield f"declare another version, or {status.stable_revision} again: {declared} stays rejected until then"
        yield f"try {declared} once more: kedge retry {command}"
    if rollout is None:
        return
    match found.reason:
        case Reason.WAITING_FOR_APPROVAL:
            yield f"let step {rollout.step + 1} pass: kedge approve {command}"
        case Reason.PAUSED:
            yield "let it go on: set spec.rollout.paused to false"
        case Reason.OBJECTIVE_ON_HOLD | Reason.INSUFFICIENT_DATA:
            yield "let it go on: change the objective, its action or onInsufficientData, or send more requests"
    if status.candidate_revision is not None and status.stable_revision is not None:
        yield f"take {status.candidate_revision} back: kedge abort {command}"
    elif status.previous_revision is not None:
        yield f"go back to {status.previous_revision}: kedge abort {command}"


def _step(told: Record, step: RecordedStep) -> Iterator[str]:
    title = f"{step.phase} {step.step}, {step.weight_percent} %" if step.step is not None else step.phase
    lasted = "going on" if step.ended_at is None else f"{_seconds(step.started_at, step.ended_at):.0f} s"
    parts = [f"{step.started_at}, {lasted}"]
    if step.achieved_percent is not None:
        parts.append(f"served {step.achieved_percent} %, {step.requests} requests")
    approvals = [one for one in told.approvals if one.step == step.step]
    parts += [f"approved by {one.manager or 'somebody'}" for one in approvals]
    yield from _wrapped(f"  {title}: ", "; ".join(parts))
    for verdict in step.verdicts:
        yield from _wrapped(f"      {verdict.name}: ", f"{verdict.verdict}, {verdict.message}")


def _seconds(began: str, ended: str) -> float:
    return times.seconds(ended) - times.seconds(began)


def _paragraph(label: str, text: str) -> Iterator[str]:
    yield from _wrapped(f"{label:<{LABEL}}", text, indent=LABEL)


def _wrapped(head: str, text: str, *, indent: int | None = None) -> Iterator[str]:
    """Yields the text in lines of a hundred columns, those after the first indented; long words stay whole."""
    following = " " * (indent if indent is not None else len(head) - len(head.lstrip()) + 4)
    yield from textwrap.wrap(
        f"{head}{text}",
        width=COLUMNS,
        initial_indent="",
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [head.rstrip()]
