"""One decision: what is counted, judged and answered, and what should exist after it."""

import dataclasses

from kedge.api import specs
from kedge.api.conditions import ConditionType, Reason
from kedge.api.levers import Levers
from kedge.api.statuses import Memory, ModelDeploymentStatus, ObjectiveStatus, RolloutStatus
from kedge.decide import conditions, counting, drifts, evidence, policy, situations, verdicts
from kedge.decide.judgements import Case, Judgement, Verdict, percent
from kedge.decide.situations import Event, EventType, Outcome, Phase, Situation
from kedge.desired import plans, routing
from kedge.observe.snapshot import Snapshot, WorkloadView

GUARD_INTERVAL_SECONDS = 10.0
"""The least time between two polls of a guarded revision: it lasts for an hour, and each poll writes status."""
PREFLIGHT_INTERVAL_SECONDS = 2.0
"""Between looks at starting pods, besides the cluster's own events: troubles become final by time alone."""

CONFLICT_INTERVAL_SECONDS = 10.0
"""Between looks at a name that is taken: the object of somebody else is not watched, so its end is no news."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What should exist."""

    workloads: dict[str, WorkloadView]
    """The Deployments by revision."""
    selected: str
    """The revision that takes the traffic, or `routing.ALL_REVISIONS`."""
    forgotten: tuple[str, ...] = ()
    """Revisions that nothing refers to any more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a snapshot and a memory."""

    status: ModelDeploymentStatus
    events: tuple[Event, ...]
    plan: Plan
    look_again_seconds: float | None
    """When time alone may change the decision; None when only news can."""
    reason: Reason
    """Why, in one word."""
    moved: bool
    """Whether the state changed."""
    judgements: tuple[Judgement, ...]
    """The verdicts of this poll."""
    memory: Memory
    """The rollout's memory with this poll counted, before a step or the rollout ended by it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """Everything that a decision depends on."""

    spec: specs.ModelDeploymentSpec
    generation: int
    declared: str
    """The revision that the spec declares."""
    selector: str
    """Selects all pods of the ModelDeployment, as text."""
    levers: Levers
    status: ModelDeploymentStatus
    snapshot: Snapshot
    now: float
    """Seconds since the epoch."""


def decide(given: Input) -> Decision:
    """Returns the decision for this input: the same input always gives the same decision."""
    memory, judgements = _judge(given)
    situation = Situation(
        spec=given.spec,
        declared=given.declared,
        status=given.status,
        snapshot=given.snapshot,
        levers=given.levers,
        now=given.now,
        memory=memory,
        judgements=judgements,
    )
    outcome = policy.apply(situation)
    status = _status(given, outcome, judgements)
    return Decision(
        status=status,
        events=(*_alerts(situation), *_stalls(given, outcome), *outcome.events),
        plan=_plan(given, status),
        look_again_seconds=_look_again(given.spec, outcome),
        reason=outcome.reason,
        moved=outcome.moved,
        judgements=judgements,
        memory=memory,
    )


def measured_pods_matter(status: ModelDeploymentStatus) -> bool:
    """Tells whether the pods' metrics play a part in the next decision."""
    return status.rollout is not None and status.rollout.phase != Phase.PREFLIGHT


def indicators(spec: specs.ModelDeploymentSpec) -> tuple[specs.Indicator, ...]:
    """Returns what is to be counted: every objective's indicator, and requests, to tell the achieved share by."""
    counted = (objective.indicator for objective in spec.objectives if not objective.indicator.is_drift)
    distinct = {indicator.key: indicator for indicator in (*counted, specs.REQUESTS)}
    return tuple(distinct.values())


def distributions_are_due(spec: specs.ModelDeploymentSpec, status: ModelDeploymentStatus, now: float) -> bool:
    """Tells whether the pods' histograms are to be read at this poll too."""
    return status.rollout is not None and drifts.due(spec, status.rollout.memory, now)


def _judge(given: Input) -> tuple[Memory, tuple[Judgement, ...]]:
    """Counts the snapshot's samples and judges by them; the tests take one step forward."""
    status, rollout = given.status, given.status.rollout
    if rollout is None or rollout.phase == Phase.PREFLIGHT:
        return (rollout.memory if rollout else Memory()), ()
    guarded = rollout.phase == Phase.GUARD
    judged = (status.stable_revision if guarded else status.candidate_revision) or ""
    stable = None if guarded else status.stable_revision
    counted = counting.count(rollout.memory, given.snapshot, candidate=judged)
    take = evidence.watch if guarded else evidence.add
    poll = evidence.Poll(counted.increments, judged, stable, counted.past)
    memory = take(counted.memory, given.spec.objectives, poll)
    case = Case(given.spec, memory, given.snapshot, judged, stable, guarded)
    memory = drifts.look(case, given.now)
    judgements = verdicts.judge(
        dataclasses.replace(case, memory=memory), poll_seconds=_poll_seconds(given.spec, rollout)
    )
    return verdicts.remember_failures(memory, judgements), judgements


def _poll_seconds(spec: specs.ModelDeploymentSpec, rollout: RolloutStatus) -> float:
    """Returns the seconds between two looks in the present phase."""
    interval = float(spec.metrics.interval_seconds)
    match rollout.phase:
        case Phase.PREFLIGHT:
            return min(interval, PREFLIGHT_INTERVAL_SECONDS)
        case Phase.GUARD:
            return max(interval, GUARD_INTERVAL_SECONDS)
        case _:
            return interval


def _status(given: Input, outcome: Outcome, judgements: tuple[Judgement, ...]) -> ModelDeploymentStatus:
    rollout = outcome.rollout
    if rollout is not None and outcome.candidate is not None:
        rollout = rollout.model_copy(
            update={"achieved_percent": achieved_percent(rollout.memory, outcome.stable, outcome.candidate)}
        )
    after = given.status.model_copy(
        update={
            "observed_generation": given.generation,
            "message": outcome.message,
            "stable_revision": outcome.stable,
            "candidate_revision": outcome.candidate,
            "previous_revision": outcome.previous,
            "rejected_revisions": outcome.rejected,
            "rollout": rollout,
            "objectives": _objectives(given.spec, given.status, outcome, judgements),
            "selector": given.selector,
            "replicas": len([pod for pod in given.snapshot.pods if not pod.terminating]),
        }
    )
    serving = _ready_behind(given.snapshot, _selected(after, given.snapshot))
    return after.model_copy(
        update={
            "ready_replicas": serving,
            "conditions": conditions.summarize(
                given.status,
                outcome,
                spec=given.spec,
                declared=given.declared,
                serving=serving,
                generation=given.generation,
                now=given.now,
            ),
        }
    )


def _objectives(
    spec: specs.ModelDeploymentSpec,
    before: ModelDeploymentStatus,
    outcome: Outcome,
    judgements: tuple[Judgement, ...],
) -> tuple[ObjectiveStatus, ...]:
    """Returns the latest verdicts; those that are not judged any more stay to be read until the next rollout."""
    began = outcome.rollout is not None and before.rollout is None
    latest = {} if began else {objective.name: objective for objective in before.objectives}
    latest.update({judgement.objective.name: judgement.to_status() for judgement in judgements})
    return tuple(latest[objective.name] for objective in spec.objectives if objective.name in latest)


def achieved_percent(memory: Memory, stable: str | None, candidate: str) -> str | None:
    """Returns the share of requests that the candidate has really served in this step, in percent."""
    ours = counting.of(memory, specs.REQUESTS.key, candidate).step_total
    everything = ours + counting.of(memory, specs.REQUESTS.key, stable).step_total
    return percent(ours / everything) if everything else None


def _alerts(situation: Situation) -> tuple[Event, ...]:
    """Returns an Event for each failure that is new and rolls nothing back."""
    known = set(situation.status.rollout.memory.failed_objectives) if situation.status.rollout else set()
    reasons = {specs.Action.ALERT: Reason.OBJECTIVE_ALERT, specs.Action.HOLD: Reason.OBJECTIVE_ON_HOLD}
    if not situation.enforces:
        reasons[specs.Action.ROLLBACK] = Reason.WOULD_ROLL_BACK
    return tuple(
        Event(
            EventType.WARNING,
            reasons[judgement.objective.action],
            f"{situation.judged}: {judgement.objective.name}, {judgement.message}",
        )
        for judgement in situation.judgements
        if judgement.verdict is Verdict.FAIL
        and judgement.objective.name not in known
        and judgement.objective.action in reasons
    )


def _stalls(given: Input, outcome: Outcome) -> tuple[Event, ...]:
    """Returns an Event when a wait that only the user can end begins."""
    before = given.status.condition(ConditionType.STALLED)
    if not outcome.stalled or outcome.moved or (before is not None and before.reason == outcome.reason):
        return ()
    return (Event(EventType.WARNING, outcome.reason, outcome.message),)


def _plan(given: Input, status: ModelDeploymentStatus) -> Plan:
    replicas = dict.fromkeys(given.snapshot.workloads, 0)
    if status.stable_revision is not None:
        replicas[status.stable_revision] = given.spec.replicas
    if status.previous_revision is not None:
        replicas[status.previous_revision] = min(given.spec.rollout.guard.warm_replicas, given.spec.replicas)
    if status.candidate_revision is not None:
        replicas[status.candidate_revision] = situations.candidate_replicas(given.spec, status)
    return Plan(
        workloads={revision: _workload(given, revision, wanted) for revision, wanted in replicas.items()},
        selected=_selected(status, given.snapshot),
        forgotten=_forgotten(given, status),
    )


def _workload(given: Input, revision: str, replicas: int) -> WorkloadView:
    """Returns a Deployment as it should be; pods that run keep the histogram edges that they started with."""
    present = given.snapshot.workloads.get(revision)
    runs = present is not None and (present.replicas > 0 or replicas == 0)
    edges = present.latency_edges_milliseconds if present and runs else given.spec.latency_thresholds_milliseconds()
    return WorkloadView(replicas=replicas, latency_edges_milliseconds=edges)


def _selected(status: ModelDeploymentStatus, snapshot: Snapshot) -> str:
    """Returns which revision takes traffic in this state."""
    stable, candidate, rollout = status.stable_revision, status.candidate_revision, status.rollout
    if rollout is None or candidate is None:
        return stable or routing.ALL_REVISIONS
    if stable is None:
        return candidate
    if rollout.phase == Phase.PREFLIGHT:
        return stable
    if rollout.weight_percent == plans.FULL_WEIGHT:
        # The candidate alone is selected only once all of its pods are ready, and never let go after that.
        ready = rollout.serving_since is not None or snapshot.selected == candidate
        return candidate if ready else (snapshot.selected or stable)
    return routing.ALL_REVISIONS


def _ready_behind(snapshot: Snapshot, selected: str) -> int:
    if selected != routing.ALL_REVISIONS:
        return snapshot.ready(selected)
    return sum(pod.ready and not pod.terminating for pod in snapshot.pods)


def _forgotten(given: Input, status: ModelDeploymentStatus) -> tuple[str, ...]:
    """Returns the oldest revisions beyond the history limit, never one that something refers to."""
    referred = {
        given.declared,
        status.stable_revision,
        status.candidate_revision,
        status.previous_revision,
        *(rejected.revision for rejected in status.rejected_revisions),
        *(pod.revision for pod in given.snapshot.pods),
    }
    old = sorted(
        (one for one in given.snapshot.revisions.values() if one.hash not in referred), key=lambda one: one.sequence
    )
    beyond = max(0, len(old) - given.spec.rollout.history_limit)
    return tuple(one.hash for one in old[:beyond])


def _look_again(spec: specs.ModelDeploymentSpec, outcome: Outcome) -> float | None:
    if outcome.moved:
        return 0.0
    if outcome.reason is Reason.NAME_CONFLICT:
        return CONFLICT_INTERVAL_SECONDS
    return None if outcome.rollout is None else _poll_seconds(spec, outcome.rollout)
