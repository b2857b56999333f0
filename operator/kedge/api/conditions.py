"""The conditions of a ModelDeployment and every reason that Kedge gives, in one place.

Reasons serve conditions and Events alike. Anything that alerts or scripts may match on them, so a
reason is renamed only with a new API version.
"""

from enum import StrEnum


class ConditionType(StrEnum):
    """The condition types, stated positively where kstatus allows it."""

    READY = "Ready"
    """The declared revision serves and nothing needs a person."""
    AVAILABLE = "Available"
    """Users are being answered by enough ready replicas of some accepted revision."""
    PROGRESSING = "Progressing"
    """A rollout is under way or has just ended well."""
    DEGRADED = "Degraded"
    """Something is wrong that a person should look at."""
    ROLLED_BACK = "RolledBack"
    """The declared revision was rejected and the previous one serves."""
    RECONCILING = "Reconciling"
    """kstatus: the controller is still working (present only while True)."""
    STALLED = "Stalled"
    """kstatus: no progress without a change by the user (present only while True)."""


class Reason(StrEnum):
    """Every reason in a condition or an Event: one CamelCase word each."""

    # The course of a rollout.
    ROLLOUT_STARTED = "RolloutStarted"
    """A new revision was declared and its first pods are being started."""
    PREFLIGHT = "Preflight"
    """The candidate's pods start and check the model; no user reaches them yet."""
    STEP_STARTED = "StepStarted"
    """The candidate takes the share of traffic of the named step."""
    STEP_PASSED = "StepPassed"
    """Every gate of the step passed."""
    PROMOTING = "Promoting"
    """The candidate passed every step and is taking all traffic."""
    PROMOTED = "Promoted"
    """The candidate is the stable revision now."""
    ROLLOUT_CANCELLED = "RolloutCancelled"
    """The user declared another revision before this rollout ended."""
    ROLLED_BACK = "RolledBack"
    """The candidate was rejected and takes no traffic."""

    GUARDING = "Guarding"
    """The revision was promoted, and the previous one stays ready to take over."""
    GUARD_ENDED = "GuardEnded"
    """The guard's time passed without a failure."""
    RETRIED = "Retried"
    """The user asked for a rejected revision to be tried again."""

    # Why a step waits.
    PAUSED = "Paused"
    """spec.rollout.paused holds the rollout."""
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    """The step passed and waits for a person to approve it."""
    WAITING_FOR_REPLICAS = "WaitingForReplicas"
    """Pods are not ready yet."""
    WAITING_FOR_TIME = "WaitingForTime"
    """The step's minimum time has not passed."""
    WAITING_FOR_REQUESTS = "WaitingForRequests"
    """Too few requests were measured to judge by."""
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    """Ready pods could not be measured, so nothing can be said about them."""
    OBJECTIVE_ON_HOLD = "ObjectiveOnHold"
    """An objective whose action is Hold fails."""
    INSUFFICIENT_DATA = "InsufficientData"
    """The step's deadline passed without enough data to judge by."""

    # Why a candidate fails.
    OBJECTIVE_FAILED = "ObjectiveFailed"
    """The measured requests contradict an objective."""
    ABORTED = "Aborted"
    """The user took the revision back."""
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    """The server's image cannot be pulled."""
    INVALID_POD = "InvalidPod"
    """A container cannot be created from the declared settings."""
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    """A container ends again and again."""
    OOM_KILLED = "OOMKilled"
    """A container needed more memory than its limit."""
    MODEL_DIGEST_MISMATCH = "ModelDigestMismatch"
    """The artifact is not the one that was declared."""
    MODEL_FETCH_FAILED = "ModelFetchFailed"
    """The artifact cannot be fetched."""
    MODEL_FORMAT_REFUSED = "ModelFormatRefused"
    """The artifact's format is not one that is loaded safely."""
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    """The artifact cannot be loaded."""
    WARM_UP_FAILED = "WarmUpFailed"
    """The loaded model could not answer its warm-up request."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    """The candidate's pods were not ready in time."""

    # What is seen but not acted on.
    WOULD_ROLL_BACK = "WouldRollBack"
    """Enforcement is Observe: this failure would have rolled the candidate back."""
    OBJECTIVE_ALERT = "ObjectiveAlert"
    """An objective whose action is Alert fails."""

    # Rest and trouble outside a rollout.
    STABLE = "Stable"
    """The declared revision serves with all its replicas."""
    NO_ROLLOUT = "NoRollout"
    """Nothing is being rolled out."""
    REPLICAS_UNAVAILABLE = "ReplicasUnavailable"
    """Fewer replicas are ready than declared."""
    NEVER_SERVED = "NeverServed"
    """No revision has ever been ready to serve."""
    NAME_CONFLICT = "NameConflict"
    """An object of that name exists and belongs to somebody else."""
    INVALID_SPEC = "InvalidSpec"
    """The spec passed the API server but cannot be understood by this operator."""


MODEL_SERVER_REASONS = frozenset(
    {
        Reason.MODEL_DIGEST_MISMATCH,
        Reason.MODEL_FETCH_FAILED,
        Reason.MODEL_FORMAT_REFUSED,
        Reason.MODEL_LOAD_FAILED,
        Reason.WARM_UP_FAILED,
    }
)
"""What the model server may name as its reason in a container's termination message."""
