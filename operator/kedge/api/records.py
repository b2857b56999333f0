"""What a rollout leaves behind: the RolloutRecord, its audit trail, and the source of plots and of replay.

It is written while the rollout goes on, and never again once it has an outcome: the API server refuses that.
Everything that can be told in words and numbers stands in clear; the journal is what `kedge replay` needs to
derive all of it again.
"""

from enum import StrEnum
from typing import Annotated

import pydantic
from pydantic import Field

from kedge.api.schemas import ApiModel, list_map, rule, validated_by
from kedge.api.statuses import ObjectiveStatus, PreciseTimestamp

KIND = "RolloutRecord"
PLURAL = "rolloutrecords"
SINGULAR = "rolloutrecord"
SHORT_NAMES = ("mrec",)

SIZE_LIMIT_BYTES = 512 * 1024
"""Of one record, well below the 1.5 MiB that etcd takes: the journal gives way to what stands in clear."""
MOST_STEPS = 32
MOST_GAPS = 32
MOST_POINTS = 200
MOST_OBJECTIVES = 16
MESSAGE_LIMIT = 300
"""Characters of a sentence that stands there for each step and objective."""
END_MESSAGE_LIMIT = 4096
"""Characters of the sentence that tells the end."""

_COUNT = {"format": "int64"}


class Outcome(StrEnum):
    """How a rollout ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    CANCELLED = "Cancelled"


class Period(StrEnum):
    """What a record is about."""

    ROLLOUT = "Rollout"
    GUARD = "Guard"


class RecordedVerdict(ApiModel):
    """The verdict on one objective when a step ended."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the objective."""
    verdict: Annotated[str, Field(max_length=32)]
    """Pass, Fail, InsufficientData or ProviderError."""
    requests: Annotated[int, Field(json_schema_extra=_COUNT)] = 0
    """Events of the whole rollout that it rests on."""
    bad: Annotated[int, Field(json_schema_extra=_COUNT)] = 0
    """How many of them were bad."""
    message: Annotated[str, Field(max_length=MESSAGE_LIMIT)] = ""
    """The verdict as one sentence."""


class RecordedStep(ApiModel):
    """One phase or step of the rollout."""

    phase: Annotated[str, Field(max_length=16)]
    """Preflight, Step, Promotion or Guard."""
    step: Annotated[int, Field(ge=1)] | None = None
    """Number of the step, from 1."""
    weight_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """The share that the candidate should have taken."""
    started_at: PreciseTimestamp
    """When it began."""
    serving_since: PreciseTimestamp | None = None
    """When all of its pods were ready: its requests count from here."""
    ended_at: PreciseTimestamp | None = None
    """When it passed, or ended otherwise."""
    achieved_percent: Annotated[str, Field(max_length=16)] | None = None
    """The share that the candidate has really served, from counted requests."""
    requests: Annotated[int, Field(json_schema_extra=_COUNT)] = 0
    """Requests to the candidate since `servingSince`."""
    verdicts: Annotated[tuple[RecordedVerdict, ...], Field(max_length=MOST_OBJECTIVES)] = ()
    """The verdicts when it ended."""


class RecordedApproval(ApiModel):
    """A step that a person let pass."""

    step: Annotated[int, Field(ge=1)]
    """Number of the step, from 1."""
    time: PreciseTimestamp
    """When it passed by that approval."""
    manager: Annotated[str, Field(max_length=128)] = ""
    """Field manager that wrote the annotation: the API server keeps the name of the program, not of its user."""


class PointEvidence(ApiModel):
    """The evidence on one objective at one poll."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the objective."""
    requests: Annotated[int, Field(json_schema_extra=_COUNT)] = 0
    """Events so far."""
    bad: Annotated[int, Field(json_schema_extra=_COUNT)] = 0
    """Bad ones among them."""
    log_e_value: Annotated[str, Field(max_length=24)] | None = None
    """Natural logarithm of the evidence against the objective."""
    log_threshold: Annotated[str, Field(max_length=24)] | None = None
    """The logarithm of the evidence at which the verdict is Fail."""
    distance: Annotated[str, Field(max_length=24)] | None = None
    """For drift: the measured distance."""
    distance_threshold: Annotated[str, Field(max_length=24)] | None = None
    """For drift: the distance above which it is more than chance."""


class EvidencePoint(ApiModel):
    """The evidence at one poll."""

    time: PreciseTimestamp
    """When it was judged."""
    objectives: Annotated[tuple[PointEvidence, ...], Field(max_length=MOST_OBJECTIVES)]
    """What was known of each objective."""


class EvidenceSeries(ApiModel):
    """How the evidence grew, thinned so that it stays small."""

    polls: Annotated[int, Field(ge=0, json_schema_extra=_COUNT)] = 0
    """Polls that judged something."""
    every: Annotated[int, Field(ge=1, json_schema_extra=_COUNT)] = 1
    """One poll in so many is kept, and the last one."""
    points: Annotated[tuple[EvidencePoint, ...], Field(max_length=MOST_POINTS + 2)] = ()
    """The kept ones in the order of time."""


class Gap(ApiModel):
    """A time of which the journal knows nothing."""

    since: PreciseTimestamp
    """Time of the last decision before it."""
    until: PreciseTimestamp
    """Time of the first decision after it."""
    cause: Annotated[str, Field(max_length=MESSAGE_LIMIT)]
    """What is known of its cause, as one sentence."""


class StoredJournal(ApiModel):
    """Everything that each decision rested on, and what was decided."""

    version: int = 1
    """Version of its form."""
    dropped: Annotated[int, Field(ge=0)] = 0
    """Oldest segments that were given up to stay within the bound."""
    segments: Annotated[tuple[Annotated[str, Field(max_length=SIZE_LIMIT_BYTES)], ...], Field(max_length=1024)] = ()
    """Each is base64 of zlib of JSON: a whole status, and the decisions that followed from it."""


class Record(ApiModel):
    """One rollout from its beginning to its outcome."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=validated_by(
            rule("!has(oldSelf.outcome) || self == oldSelf", "has an outcome, so it can be deleted but not changed")
        )
    )

    model_deployment: Annotated[str, Field(max_length=63)]
    """Name of the ModelDeployment."""
    period: Period = Period.ROLLOUT
    """Rollout: from the declaration of a revision to its promotion or rejection. Guard: a watch after promotion that
    ended in a rollback."""
    candidate: Annotated[str, Field(max_length=63)]
    """The revision that was judged."""
    stable: Annotated[str, Field(max_length=63)] | None = None
    """The revision beside it, to which a rollback goes."""
    model_uri: Annotated[str, Field(max_length=2048)] | None = None
    """Where the candidate's artifact is."""
    model_sha256: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the candidate's artifact."""
    spec_sha256: Annotated[str, Field(max_length=64)]
    """Digest of the spec with which it began, defaults filled in, as JSON with sorted keys and no spaces."""
    started_at: PreciseTimestamp
    """When it began."""
    recorded_until: PreciseTimestamp
    """Time of the last decision that the journal holds."""
    ended_at: PreciseTimestamp | None = None
    """When it ended."""
    outcome: Outcome | None = None
    """How it ended; absent while it goes on, and final once it is there."""
    reason: Annotated[str, Field(max_length=64)] | None = None
    """Why, as one CamelCase word."""
    message: Annotated[str, Field(max_length=END_MESSAGE_LIMIT)] | None = None
    """Why, as one sentence with its evidence."""
    steps: Annotated[tuple[RecordedStep, ...], Field(max_length=MOST_STEPS)] = ()
    """Its phases and steps in their order."""
    approvals: Annotated[tuple[RecordedApproval, ...], Field(max_length=MOST_STEPS)] = ()
    """The steps that a person let pass."""
    aborted_by: Annotated[str, Field(max_length=128)] | None = None
    """Field manager that wrote the annotation `kedge.dev/abort`, where that ended it."""
    objectives: Annotated[
        tuple[ObjectiveStatus, ...], Field(max_length=MOST_OBJECTIVES, json_schema_extra=list_map("name"))
    ] = ()
    """The last verdict on each objective, with its evidence."""
    series: EvidenceSeries = EvidenceSeries()
    """How the evidence grew."""
    gaps: Annotated[tuple[Gap, ...], Field(max_length=MOST_GAPS)] = ()
    """Times of which the journal knows nothing."""
    journal: StoredJournal = StoredJournal()
    """What `kedge replay` derives all of this from again."""
