"""What a user declares: the `spec` of a ModelDeployment.

The CRD is generated from these models, so a constraint stands here once, as schema or as a CEL rule,
and the API server enforces it. Fields arrive here only when the operator acts on them.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import pydantic
from pydantic import Field

from kedge.api import schemas, servers
from kedge.api.schemas import ApiModel, list_map, rule, validated_by
from kedge.api.servers import Server


class TrafficMode(StrEnum):
    """How requests reach the pods."""

    SERVICE = "Service"


class IndicatorType(StrEnum):
    """What is measured: the first four as good events over all events, drift as a distance between histograms."""

    AVAILABILITY = "Availability"
    LATENCY = "Latency"
    VALID_INPUTS = "ValidInputs"
    FEEDBACK = "Feedback"
    FEATURE_DRIFT = "FeatureDrift"
    PREDICTION_DRIFT = "PredictionDrift"


class DriftMeasure(StrEnum):
    """How the distance between two histograms is measured."""

    PSI = "PSI"
    JENSEN_SHANNON = "JensenShannon"
    KOLMOGOROV_SMIRNOV = "KolmogorovSmirnov"


class CompareTo(StrEnum):
    """What an objective holds the candidate against."""

    TARGET = "Target"
    STABLE = "Stable"


class Action(StrEnum):
    """What happens when an objective fails."""

    ROLLBACK = "Rollback"
    HOLD = "Hold"
    ALERT = "Alert"


class MetricsSource(StrEnum):
    """Where measurements come from."""

    PODS = "Pods"


class Enforcement(StrEnum):
    """Whether verdicts are acted on."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class OnInsufficientData(StrEnum):
    """What happens to a step whose deadline passes without enough data."""

    HOLD = "Hold"
    PROMOTE = "Promote"
    ROLL_BACK = "RollBack"


class Approval(StrEnum):
    """Whether a person must agree before a step may pass."""

    NOT_REQUIRED = "NotRequired"
    REQUIRED = "Required"


class PassWhen(StrEnum):
    """What an objective needs to pass."""

    NO_VIOLATION = "NoViolation"
    PROVEN = "Proven"


class Model(ApiModel):
    """The artifact to serve."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=validated_by(
            rule(
                "!self.uri.matches('^(https?|s3|gs)://') || has(self.sha256)",
                "is required for a remote uri: give the output of `sha256sum` over the artifact",
                field_path=".sha256",
            ),
            rule(
                "!has(self.secretRef) || self.uri.matches('^(s3|gs)://')",
                "belongs to s3 and gs uris: nothing else takes credentials",
                field_path=".secretRef",
            ),
        )
    )

    uri: Annotated[
        str,
        Field(
            max_length=2048,
            json_schema_extra=validated_by(
                rule(
                    "self.matches('^((https?|s3|gs)://[^/]+/.+|configmap://[a-z0-9.-]+/[^/]+|pvc://[a-z0-9.-]+/.+|file:///.+)$')",
                    "must be https://HOST/PATH, http://HOST/PATH, s3://BUCKET/KEY, gs://BUCKET/KEY,"
                    " configmap://NAME/KEY, pvc://CLAIM/PATH or file:///PATH inside the server's image",
                )
            ),
        ),
    ]
    """Where the artifact is: `https://HOST/PATH`, `http://HOST/PATH`, `s3://BUCKET/KEY`, `gs://BUCKET/KEY`,
    `configmap://NAME/KEY`, `pvc://CLAIM/PATH`, or `file:///PATH` for a file inside the server's image. A remote
    one that ends in a slash is a package."""

    sha256: (
        Annotated[
            str,
            Field(
                max_length=64,
                json_schema_extra=validated_by(
                    rule(
                        "self.matches('^[0-9a-f]{64}$')",
                        "must be the 64 lowercase hexadecimal digits that `sha256sum` prints",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """SHA-256 digest of the artifact in lowercase hexadecimal, of its `kedge.json` where it is a package. The server
    checks it before it loads anything."""

    secret_ref: servers.LocalObjectReference | None = None
    """Secret whose keys are environment variables of whatever fetches the artifact: for s3 `AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY`, and `AWS_REGION` and `AWS_ENDPOINT_URL` where they are needed; for gs `FSSPEC_GS_TOKEN`,
    a service account's key in JSON. Without it the pod's service account is asked."""


class Traffic(ApiModel):
    """How requests reach the pods."""

    mode: TrafficMode = TrafficMode.SERVICE
    """Service: the share of a revision follows its share of the ready pods."""


class Indicator(ApiModel):
    """A service level indicator: the share of good events, or for drift the distance between two histograms."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=validated_by(
            rule(
                "self.type != 'Latency' || has(self.thresholdMilliseconds)",
                "is required for an indicator of type Latency",
                field_path=".thresholdMilliseconds",
            ),
            rule(
                "self.type == 'Latency' || !has(self.thresholdMilliseconds)",
                "belongs to indicators of type Latency only",
                field_path=".thresholdMilliseconds",
            ),
            rule(
                "self.type in ['FeatureDrift', 'PredictionDrift'] || !has(self.measure)",
                "belongs to indicators of type FeatureDrift or PredictionDrift only",
                field_path=".measure",
            ),
        )
    )

    type: IndicatorType
    """Availability: requests answered without a server fault, of all that were not a client's fault.
    Latency: requests answered within thresholdMilliseconds, of all that were answered well.
    ValidInputs: rows within the ranges and categories of the model's profile, of all rows.
    Feedback: predictions that their later label proved right, of all that got one.
    FeatureDrift: how far the rows' features lie from the profile, or from the stable revision's rows.
    PredictionDrift: the same for what the model answers."""

    threshold_milliseconds: Annotated[int, Field(ge=1, le=600_000)] | None = None
    """The longest time a good request takes, in milliseconds."""
    measure: DriftMeasure | None = None
    """How drift is measured: the Population Stability Index (PSI, the default), the Jensen-Shannon divergence in nats,
    or the Kolmogorov-Smirnov distance."""

    @property
    def is_drift(self) -> bool:
        """Whether it is a distance between histograms, and no share of events."""
        return self.type in {IndicatorType.FEATURE_DRIFT, IndicatorType.PREDICTION_DRIFT}

    @property
    def key(self) -> str:
        """Names what is counted, such as `availability` or `latency/100`; equal indicators share it."""
        kind = self.type.value.lower()
        return kind if self.threshold_milliseconds is None else f"{kind}/{self.threshold_milliseconds}"


REQUESTS = Indicator(type=IndicatorType.AVAILABILITY)
"""What tells how many requests a revision has answered: the objectives' own events may be others."""

_DRIFT = "self.indicator.type in ['FeatureDrift', 'PredictionDrift']"


class Objective(ApiModel):
    """A service level objective that the candidate is judged against."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=validated_by(
            rule(
                f"{_DRIFT} || self.compareTo != 'Target' || has(self.targetPercent)",
                "is required when compareTo is Target",
                field_path=".targetPercent",
            ),
            rule(
                "self.compareTo != 'Stable' || !has(self.targetPercent)",
                "belongs to compareTo Target: with Stable give tolerancePercent, or for drift maximum",
                field_path=".targetPercent",
            ),
            rule(
                f"{_DRIFT} || self.compareTo != 'Stable' || has(self.tolerancePercent)",
                "is required when compareTo is Stable",
                field_path=".tolerancePercent",
            ),
            rule(
                "self.compareTo != 'Target' || !has(self.tolerancePercent)",
                "belongs to compareTo Stable: with Target give targetPercent, or for drift maximum",
                field_path=".tolerancePercent",
            ),
            rule(
                f"!({_DRIFT}) || has(self.maximum)",
                'is required for drift: the largest distance that is still fine, such as "0.2"',
                field_path=".maximum",
            ),
            rule(
                f"{_DRIFT} || !has(self.maximum)",
                "belongs to indicators of type FeatureDrift or PredictionDrift only",
                field_path=".maximum",
            ),
            rule(
                f"!({_DRIFT}) || !(has(self.targetPercent) || has(self.tolerancePercent))",
                "has a percentage, but drift is a distance: give maximum instead",
            ),
            rule(
                "self.indicator.type != 'FeatureDrift' || self.compareTo == 'Stable' || self.action != 'Rollback'",
                "must be Alert or Hold for FeatureDrift against the profile: inputs that changed for every revision are"
                " no fault of the candidate, and taking it back would not change them; or use compareTo Stable",
                field_path=".action",
            ),
        )
    )

    name: Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
    """Name of the objective, unique in the list."""
    indicator: Indicator
    """What is counted."""
    compare_to: CompareTo = CompareTo.TARGET
    """Target: against targetPercent, or for drift against the profile that the model was packed with. Stable: against
    the stable revision in the same period."""
    target_percent: schemas.TargetPercent | None = None
    """The least share of good requests, in percent."""
    tolerance_percent: schemas.TolerancePercent | None = None
    """By how many percentage points the candidate's share of bad requests may exceed the stable revision's."""
    maximum: schemas.Distance | None = None
    """The largest distance that is still no drift, in the units of the indicator's measure."""
    action: Action = Action.ROLLBACK
    """Rollback: take the candidate back. Hold: stay at the step. Alert: tell and go on."""

    @property
    def budget(self) -> float:
        """The allowed fraction of bad requests against the target, in (0, 1)."""
        if self.target_percent is None:
            raise ValueError(f"objective {self.name} has no target")
        return float((100 - self.target_percent) / 100)

    @property
    def tolerance(self) -> float:
        """The allowed excess of the candidate's bad fraction over stable's, in [0, 0.5]."""
        if self.tolerance_percent is None:
            raise ValueError(f"objective {self.name} has no tolerance")
        return float(self.tolerance_percent / 100)

    @property
    def largest_distance(self) -> float:
        """The largest distance that is still no drift, at least 0."""
        if self.maximum is None:
            raise ValueError(f"objective {self.name} has no maximum")
        return float(self.maximum)


class Metrics(ApiModel):
    """How the pods are measured."""

    source: MetricsSource = MetricsSource.PODS
    """Pods: the operator reads every pod's own metrics page."""
    interval_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """Seconds between two measurements."""
    drift_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Seconds between two readings of the histograms that drift is measured by: they are many, and tell more slowly."""


class Step(ApiModel):
    """One step of a rollout."""

    weight_percent: Annotated[int, Field(ge=1, le=100)]
    """The share of requests that the candidate should take, in percent; rounded to what the replicas allow."""
    minimum_seconds: Annotated[int, Field(ge=0, le=604_800)] = 30
    """The least time that the step lasts, in seconds."""
    approval: Approval = Approval.NOT_REQUIRED
    """Required: the step passes only after a person has approved it by the annotation `kedge.dev/approve:
    REVISION/STEP`, with steps counted from 1."""


class Guard(ApiModel):
    """The watch after promotion, which goes back to the previous revision if the new one turns bad."""

    duration_seconds: Annotated[int, Field(ge=0, le=2_592_000)] = 3600
    """How long the previous revision stays ready to take over, in seconds; 0 for no guard."""
    warm_replicas: Annotated[int, Field(ge=0, le=500)] = 1
    """Pods of the previous revision that go on running, at most `replicas`."""
    mean_hours_between_false_alarms: Annotated[int, Field(ge=1, le=87_600)] = 720
    """How rarely the guard of a good revision cries wolf: hours between two false alarms, on average."""


class Rollout(ApiModel):
    """How a new revision replaces the stable one."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=validated_by(
            rule(
                "self.steps.all(step, step.minimumSeconds < self.stepDeadlineSeconds)",
                "must be longer than the minimumSeconds of every step",
                field_path=".stepDeadlineSeconds",
            )
        )
    )

    enforcement: Enforcement = Enforcement.ENFORCE
    """Enforce: roll a failing candidate back. Observe: judge and report, roll nothing back."""
    steps: Annotated[
        tuple[Step, ...],
        Field(
            min_length=1,
            max_length=20,
            json_schema_extra=validated_by(
                rule(
                    "self.all(step, self.filter(other, other.weightPercent == step.weightPercent).size() == 1)"
                    " && self.map(step, step.weightPercent).isSorted()",
                    "must have rising weights, such as 5, 25, 50",
                ),
            ),
        ),
    ] = (Step(weight_percent=10), Step(weight_percent=50))
    """The steps in their order, with rising weights. After the last one the candidate is promoted."""
    false_rollback_percent: schemas.RiskPercent = Decimal(1)
    """The bound on the chance of rolling a good revision back, over the whole rollout, in percent."""
    pass_when: PassWhen = PassWhen.NO_VIOLATION
    """NoViolation: a step passes when minimumRequests contradict no objective. Proven: when the requests also show,
    with 95 % confidence at every look, that each objective with a target is met."""
    minimum_requests: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100
    """The requests to the candidate that a step needs before it can pass."""
    on_insufficient_data: OnInsufficientData = OnInsufficientData.HOLD
    """What happens when stepDeadlineSeconds runs out without enough data to judge by."""
    step_deadline_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = 600
    """Seconds that a step may take to gather its data."""
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """Seconds that the candidate's pods may take to become ready."""
    guard: Guard = Guard()
    """The watch after promotion."""
    paused: bool = False
    """Holds every rollout where it is; failures still roll back."""
    history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """How many old revisions, rejections and records of finished rollouts are kept."""


DEFAULT_OBJECTIVES = (
    Objective(name="availability", indicator=Indicator(type=IndicatorType.AVAILABILITY), target_percent=Decimal(99)),
)


class ModelDeploymentSpec(ApiModel):
    """A machine-learning model in service, and the objectives that each of its versions must meet."""

    replicas: Annotated[int, Field(ge=1, le=500)] = 1
    """Pods that serve the stable revision."""
    model: Model
    """The artifact to serve."""
    server: Server = Server()
    """The model server's pods."""
    traffic: Traffic = Traffic()
    """How requests reach the pods."""
    objectives: Annotated[
        tuple[Objective, ...], Field(min_length=1, max_length=16, json_schema_extra=list_map("name"))
    ] = DEFAULT_OBJECTIVES
    """The service level objectives; availability of 99 % when none are given."""
    metrics: Metrics = Metrics()
    """How the pods are measured."""
    rollout: Rollout = Rollout()
    """How a new revision replaces the stable one."""

    def latency_thresholds_milliseconds(self) -> tuple[int, ...]:
        """Returns the thresholds of all latency objectives, rising and without repeats."""
        thresholds = {objective.indicator.threshold_milliseconds for objective in self.objectives}
        return tuple(sorted(threshold for threshold in thresholds if threshold is not None))
