"""What Kedge answers: the `status` of a ModelDeployment.

Status is also the operator's whole memory: whoever reads it can go on where the last one stopped.
Numbers that are not integers are decimal strings, so that a restart reads exactly what was written.
"""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from kedge.api.conditions import ConditionType
from kedge.api.schemas import ApiModel, list_map

Timestamp = Annotated[str, pydantic.WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 in UTC, to the second."""
PreciseTimestamp = Annotated[str, pydantic.WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 in UTC, to the microsecond: deadlines are counted from it."""


class Condition(ApiModel):
    """A condition in the metav1 schema."""

    type: Annotated[str, Field(max_length=316)]
    """Type of the condition."""
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})]
    """True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
    """The generation of the spec that the condition speaks of."""
    last_transition_time: Timestamp
    """When status last changed."""
    reason: Annotated[str, Field(max_length=1024)]
    """One CamelCase word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """One sentence for people."""


class RejectedRevision(ApiModel):
    """A revision that is not served again until the user asks for it."""

    revision: str
    """The revision's hash."""
    time: Timestamp
    """When it was rejected."""
    reason: str
    """Why, as one CamelCase word."""
    message: Annotated[str, Field(max_length=1024)]
    """Why, as one sentence with its evidence."""
    objective: str | None = None
    """The objective that failed, if one did."""
    retry_token: str = ""
    """Value of the annotation `kedge.dev/retry` at that time; another one asks for the revision to be tried again."""


class PodBaseline(ApiModel):
    """What was counted at one pod when it was last read: the next reading adds the difference only."""

    uid: str
    """UID of the pod."""
    revision: str
    """Revision of the pod."""
    process_started_at: str = ""
    """Start of the process that counted, as the metrics page says; another value means that counting began anew."""
    counts: Annotated[
        dict[str, tuple[int, ...]],
        pydantic.WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "integer", "format": "int64"}},
            }
        ),
    ]
    """Cumulative bad and total events by the key of the indicator."""


class RatioCounts(ApiModel):
    """Events of one indicator at one revision, summed over pods, restarts and polls of this rollout."""

    indicator: str
    """Key of the indicator, such as `availability` or `latency/100`."""
    revision: str
    """The revision that was measured."""
    bad: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
    """Bad events."""
    total: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
    """All events."""
    step_total: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] = 0
    """All events since the present step began."""


class NamedState(ApiModel):
    """State of one sequential test or estimate."""

    name: str
    """Name of the objective, or key of the indicator, that it belongs to."""
    state: Annotated[
        dict[str, Any],
        pydantic.WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    ]
    """Its form is versioned by whoever wrote it."""


class Memory(ApiModel):
    """What the next decision needs from the ones before it."""

    version: Literal[1] = 1
    """Version of this structure."""
    baselines: tuple[PodBaseline, ...] = ()
    """The last reading of each pod."""
    counts: tuple[RatioCounts, ...] = ()
    """The sums so far."""
    polls: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] = 0
    """Polls at which the judged revision had new requests."""
    comparisons: tuple[NamedState, ...] = ()
    """The tests against the stable revision so far, by objective."""
    spreads: tuple[NamedState, ...] = ()
    """How the stable revision's polls differ from each other, by indicator."""
    guards: tuple[NamedState, ...] = ()
    """The detectors of the guard so far, by objective."""
    drifts: tuple[NamedState, ...] = ()
    """The comparisons of histograms so far, by objective."""
    distributions_read_at: PreciseTimestamp | None = None
    """When the histograms were last read."""
    failed_objectives: tuple[str, ...] = ()
    """Objectives that have failed in this rollout; a failure is never taken back."""


class RolloutStatus(ApiModel):
    """The rollout that is under way."""

    phase: Annotated[str, Field(json_schema_extra={"enum": ["Preflight", "Step", "Promotion", "Guard"]})]
    """Preflight: no user traffic yet. Step: a share of it. Promotion: the candidate grows to all replicas.
    Guard: it was promoted, and the previous revision can still take over."""
    step: Annotated[int, Field(ge=0)] = 0
    """Index of the present or next step, from 0."""
    weight_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """The declared share of the present step."""
    achieved_percent: str | None = None
    """The share that the candidate has really served in this step, from counted requests."""
    started_at: PreciseTimestamp
    """When the rollout began."""
    phase_started_at: PreciseTimestamp
    """When the present phase or step began."""
    serving_since: PreciseTimestamp | None = None
    """When the pods of the present step were all ready; its minimum time counts from here."""
    deadline_at: PreciseTimestamp | None = None
    """When the present phase or step ends at the latest."""
    waiting_for: str | None = None
    """What the rollout waits for, as one CamelCase word."""
    memory: Memory = Memory()
    """What the next decision needs from the ones before it."""


class ObjectiveStatus(ApiModel):
    """The verdict on one objective, with its evidence."""

    name: str
    """Name of the objective."""
    verdict: Annotated[str, Field(json_schema_extra={"enum": ["Pass", "Fail", "InsufficientData", "ProviderError"]})]
    """Pass, Fail, InsufficientData or ProviderError."""
    requests: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    """Requests to the candidate that were counted for it; for drift and ValidInputs, rows of them."""
    bad: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    """How many of them were bad."""
    estimate_percent: str | None = None
    """The measured share of bad requests."""
    design_effect: str | None = None
    """By what the counts were divided, since requests fail in bursts; 1 when they do not."""
    interval_percent: tuple[str, ...] | None = None
    """Where the true share of bad requests lies, at every look (95 % confidence sequence): low, high."""
    detectable_percent: str | None = None
    """The smallest share of bad requests that this many requests would have revealed with 95 % probability."""
    log_e_value: str | None = None
    """Natural logarithm of the evidence that the objective is violated; for a guard, of its detector."""
    log_threshold: str | None = None
    """The logarithm of the evidence at which the verdict is Fail."""
    alpha_percent: str | None = None
    """The chance of a false Fail that this objective was given, of falseRollbackPercent; not for a guard."""
    distance: str | None = None
    """For drift: the measured distance where it is farthest from what is allowed."""
    distance_threshold: str | None = None
    """For drift: the distance above which it is more than chance beside a true one of `maximum`."""
    histogram: str | None = None
    """For drift: the feature or output that these two speak of."""
    message: str = ""
    """The verdict as one sentence."""


class ModelDeploymentStatus(ApiModel):
    """What Kedge saw and did."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = -1
    """The generation of the spec that this status speaks of; -1 until Kedge has seen it."""
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=list_map("type"))] = ()
    """Conditions; Ready sums them up."""
    message: str | None = None
    """The state in one sentence."""
    stable_revision: str | None = None
    """The accepted revision that serves."""
    candidate_revision: str | None = None
    """The revision that is being rolled out."""
    previous_revision: str | None = None
    """The revision that the guard can go back to."""
    rejected_revisions: Annotated[tuple[RejectedRevision, ...], Field(json_schema_extra=list_map("revision"))] = ()
    """Revisions that are not served again by themselves, oldest first."""
    rollout: RolloutStatus | None = None
    """The rollout that is under way."""
    objectives: Annotated[tuple[ObjectiveStatus, ...], Field(json_schema_extra=list_map("name"))] = ()
    """The verdicts of the rollout that is under way or was the last."""
    replicas: int = 0
    """Pods that exist."""
    ready_replicas: int = 0
    """Pods of the serving revisions that are ready."""
    selector: str | None = None
    """Label selector of the pods, for the scale subresource."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """Returns the condition of this type, or None."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def is_rejected(self, revision: str) -> bool:
        """Tells whether the revision was rejected and not asked for again since."""
        return any(rejected.revision == revision for rejected in self.rejected_revisions)
