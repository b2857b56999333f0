"""The conditions that tell a state: the only place that words them.

Tools read them by kstatus: Ready sums up, Reconciling and Stalled are there only while True.
"""

from kedge.api import specs
from kedge.api.conditions import ConditionType, Reason
from kedge.api.statuses import Condition, ModelDeploymentStatus
from kedge.decide import times
from kedge.decide.situations import Outcome

Told = tuple[bool, Reason, str]
"""Status, reason and message of a condition."""


def summarize(
    previous: ModelDeploymentStatus,
    outcome: Outcome,
    *,
    spec: specs.ModelDeploymentSpec,
    declared: str,
    serving: int,
    generation: int,
    now: float,
) -> tuple[Condition, ...]:
    """Returns the conditions of the state after `outcome`, with `serving` pods ready behind the Service."""
    told: dict[ConditionType, Told] = {
        ConditionType.READY: _ready(outcome, spec, declared, serving),
        ConditionType.AVAILABLE: _available(spec, outcome, serving),
        ConditionType.PROGRESSING: _progressing(outcome),
        ConditionType.DEGRADED: (outcome.degraded, outcome.reason, outcome.message),
        ConditionType.ROLLED_BACK: _rolled_back(outcome, declared),
    }
    if outcome.stalled:
        told[ConditionType.STALLED] = (True, outcome.reason, outcome.message)
    elif not told[ConditionType.READY][0]:
        told[ConditionType.RECONCILING] = (True, outcome.reason, outcome.message)
    return tuple(_condition(previous, kind, told_of, generation=generation, now=now) for kind, told_of in told.items())


def invalid(previous: ModelDeploymentStatus, message: str, *, generation: int, now: float) -> tuple[Condition, ...]:
    """Returns the conditions of a spec that this operator cannot understand; what serves goes on serving."""
    told: dict[ConditionType, Told] = {
        ConditionType.READY: (False, Reason.INVALID_SPEC, message),
        ConditionType.DEGRADED: (True, Reason.INVALID_SPEC, message),
        ConditionType.STALLED: (True, Reason.INVALID_SPEC, message),
    }
    kept = tuple(one for one in previous.conditions if one.type not in {*told, ConditionType.RECONCILING})
    return kept + tuple(
        _condition(previous, kind, told_of, generation=generation, now=now) for kind, told_of in told.items()
    )


def _ready(outcome: Outcome, spec: specs.ModelDeploymentSpec, declared: str, serving: int) -> Told:
    ready = declared == outcome.stable and outcome.candidate is None and serving >= spec.replicas
    return ready and not outcome.stalled, outcome.reason, outcome.message


def _available(spec: specs.ModelDeploymentSpec, outcome: Outcome, serving: int) -> Told:
    enough = spec.replicas - spec.replicas // 4
    message = f"{serving} pods are ready to serve, {enough} of {spec.replicas} are enough"
    if outcome.stable is None:
        return False, Reason.NEVER_SERVED, message
    available = serving >= enough
    return available, Reason.STABLE if available else Reason.REPLICAS_UNAVAILABLE, message


def _progressing(outcome: Outcome) -> Told:
    if outcome.candidate is not None:
        return not outcome.stalled, outcome.reason, outcome.message
    if outcome.reason is Reason.PROMOTED:
        return True, outcome.reason, outcome.message
    return False, Reason.NO_ROLLOUT, "nothing is being rolled out"


def _rolled_back(outcome: Outcome, declared: str) -> Told:
    rejected = next((one for one in outcome.rejected if one.revision == declared), None)
    if rejected is None:
        return False, Reason.NO_ROLLOUT, "the declared revision was not rejected"
    return True, Reason(rejected.reason), f"rejected {rejected.revision}: {rejected.message}"


def _condition(
    previous: ModelDeploymentStatus, kind: ConditionType, told: Told, *, generation: int, now: float
) -> Condition:
    holds, reason, message = told
    status = "True" if holds else "False"
    before = previous.condition(kind)
    unchanged = before is not None and before.status == status
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and unchanged else times.to_the_second(now),
        reason=reason,
        message=message,
    )
