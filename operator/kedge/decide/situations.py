"""What a rule of the policy looks at, and what it answers."""

import dataclasses
from enum import StrEnum

from kedge.api import specs
from kedge.api.conditions import Reason
from kedge.api.levers import Levers
from kedge.api.statuses import Memory, ModelDeploymentStatus, RejectedRevision, RolloutStatus
from kedge.decide import failures, times
from kedge.decide.judgements import Judgement
from kedge.desired import plans
from kedge.observe.snapshot import Snapshot, Trouble


class Phase(StrEnum):
    """Where a rollout is."""

    PREFLIGHT = "Preflight"
    STEP = "Step"
    PROMOTION = "Promotion"
    GUARD = "Guard"


class EventType(StrEnum):
    """The two types of Kubernetes Events."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that happened and that people should be able to read later."""

    type: EventType
    reason: Reason
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the next decision depends on."""

    spec: specs.ModelDeploymentSpec
    declared: str
    """The revision that the spec declares."""
    status: ModelDeploymentStatus
    snapshot: Snapshot
    levers: Levers
    now: float
    """Seconds since the epoch."""
    memory: Memory
    """The rollout's memory with this snapshot counted."""
    judgements: tuple[Judgement, ...]

    @property
    def stable(self) -> str | None:
        """The accepted revision."""
        return self.status.stable_revision

    @property
    def candidate(self) -> str | None:
        """The revision that is being rolled out."""
        return self.status.candidate_revision

    @property
    def rollout(self) -> RolloutStatus:
        """The rollout under way; ask only behind the rule that starts one."""
        if self.status.rollout is None:
            raise ValueError("no rollout is under way")
        return self.status.rollout

    @property
    def step(self) -> specs.Step | None:
        """The present step as the spec declares it now, or None past the last one."""
        return plans.step_at(self.spec.rollout, self.rollout.step)

    @property
    def wanted(self) -> int:
        """Candidate pods that the present phase needs."""
        return candidate_replicas(self.spec, self.status)

    @property
    def ready(self) -> int:
        """Candidate pods that are ready."""
        return self.snapshot.ready(self.candidate)

    @property
    def guarded(self) -> bool:
        """Whether the stable revision was promoted just now and its predecessor can still take over."""
        return self.status.rollout is not None and self.status.rollout.phase == Phase.GUARD

    @property
    def judged(self) -> str | None:
        """The revision that may be rolled back: the candidate, or the guarded one."""
        return self.stable if self.guarded else self.candidate

    @property
    def trouble(self) -> Trouble | None:
        """Why the judged revision's pods will not serve."""
        return None if self.judged is None else failures.of(self.snapshot, self.judged, self.now)

    @property
    def enforces(self) -> bool:
        """Whether failures are acted on."""
        return self.spec.rollout.enforcement is specs.Enforcement.ENFORCE

    @property
    def pods_are_late(self) -> bool:
        """Whether pods have been awaited for longer than the progress deadline.

        Before they serve, that counts from the start of the phase; after it, from when one stopped being ready.
        """
        deadline = self.spec.rollout.progress_deadline_seconds
        if self.rollout.serving_since is None:
            return self.passed(self.rollout.phase_started_at) >= deadline
        return any(
            pod.unready_since is not None and self.now - pod.unready_since >= deadline
            for pod in self.snapshot.pods_of(self.candidate)
        )

    def failed(self, action: specs.Action) -> Judgement | None:
        """Returns the first failed objective with this action."""
        return next((one for one in self.judgements if one.fails and one.objective.action is action), None)

    def passed(self, since: str | None) -> float:
        """Returns the seconds that have passed since a time of the status; 0 when it has not come."""
        return 0.0 if since is None else self.now - times.seconds(since)


def candidate_replicas(spec: specs.ModelDeploymentSpec, status: ModelDeploymentStatus) -> int:
    """Returns how many candidate pods the present phase needs."""
    rollout = status.rollout
    if rollout is None:
        return 0
    if status.stable_revision is None or rollout.phase == Phase.PROMOTION:
        return spec.replicas
    step = plans.step_at(spec.rollout, rollout.step)
    return spec.replicas if step is None else plans.candidate_replicas(step.weight_percent, spec.replicas)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule answers: the state after it, and how to tell it."""

    stable: str | None
    candidate: str | None
    previous: str | None
    rejected: tuple[RejectedRevision, ...]
    rollout: RolloutStatus | None
    reason: Reason
    message: str
    events: tuple[Event, ...] = ()
    moved: bool = False
    """Whether the state changed, so that the next decision should follow at once."""
    stalled: bool = False
    """Whether only a change by the user can help."""
    degraded: bool = False
    """Whether a person should look."""
