"""`kedge approve`, `abort` and `retry`: each sets the annotation that a person would, or says why it makes no sense."""

import dataclasses

from kedge.api import levers
from kedge.api.conditions import ConditionType, Reason
from kedge.api.levers import Levers
from kedge.api.specs import Approval, ModelDeploymentSpec
from kedge.api.statuses import ModelDeploymentStatus
from kedge.cli.errors import CommandError
from kedge.decide.situations import Phase
from kedge.desired import plans, revisions
from kedge.kubernetes_api import ObjectDict

FIELD_MANAGER = "kedge-cli"


@dataclasses.dataclass(frozen=True, slots=True)
class Pull:
    """A lever that is pulled."""

    annotations: dict[str, str | None]
    said: str
    """What it does, as one sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """A ModelDeployment as it was read."""

    name: str
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus
    levers: Levers

    @classmethod
    def read(cls, resource: ObjectDict) -> "Model":
        """Returns what the object says.

        Raises:
            ValidationError: It is not one that this Kedge understands.
        """
        return cls(
            name=resource["metadata"]["name"],
            spec=ModelDeploymentSpec.model_validate(resource["spec"]),
            status=ModelDeploymentStatus.model_validate(resource.get("status") or {}),
            levers=Levers.read(resource["metadata"]),
        )

    @property
    def declared(self) -> str:
        """The revision that the spec declares."""
        return revisions.revision_hash(self.spec)

    @property
    def reason(self) -> str:
        """The reason of the present state; in a rollout what that waits for."""
        ready = self.status.condition(ConditionType.READY)
        return ready.reason if ready else ""


def approve(model: Model, step: int | None) -> Pull:
    """Returns the approval of the present step.

    Raises:
        CommandError: Nothing waits for it, or it is not the present step.
    """
    candidate, rollout = model.status.candidate_revision, model.status.rollout
    if candidate is None or rollout is None:
        raise CommandError(f"nothing is being rolled out in {model.name}, so there is nothing to approve")
    if rollout.phase != Phase.STEP:
        raise CommandError(f"the rollout of {candidate} is in phase {rollout.phase}: only a step can be approved")
    present = rollout.step + 1
    if step is not None and step != present:
        raise CommandError(f"the rollout of {candidate} is at step {present}, not at step {step}")
    declared = plans.step_at(model.spec.rollout, rollout.step)
    if declared is None or declared.approval is not Approval.REQUIRED:
        raise CommandError(f"step {present} of {candidate} needs no approval: it passes by itself")
    if step is None and model.reason != Reason.WAITING_FOR_APPROVAL:
        raise CommandError(
            f"step {present} of {candidate} does not wait for approval yet, but for {model.reason}:"
            f" {model.status.message}; to approve it ahead, give --step {present}"
        )
    if model.levers.approves(candidate, rollout.step):
        raise CommandError(f"step {present} of {candidate} is approved already")
    return Pull({levers.APPROVE: f"{candidate}/{present}"}, f"approved step {present} of {candidate}")


def abort(model: Model) -> Pull:
    """Returns the order to take back what is rolled out or guarded.

    Raises:
        CommandError: Nothing is, or there is nothing to go back to.
    """
    status = model.status
    guarded = status.rollout is not None and status.rollout.phase == Phase.GUARD
    revision = status.stable_revision if guarded else status.candidate_revision
    back = status.previous_revision if guarded else status.stable_revision
    if revision is None or status.rollout is None:
        raise CommandError(f"nothing is being rolled out or guarded in {model.name}, so there is nothing to take back")
    if back is None:
        raise CommandError(
            f"{revision} is the first revision of {model.name}, so there is none to go back to: declare another one"
        )
    if model.levers.abort == revision:
        raise CommandError(f"{revision} is being taken back already")
    return Pull({levers.ABORT: revision}, f"{revision} is taken back; {back} serves")


def retry(model: Model, token: str) -> Pull:
    """Returns the order to try the declared revision again, once, with a token that was never used.

    Raises:
        CommandError: The declared revision was not rejected.
    """
    if not model.status.is_rejected(model.declared):
        raise CommandError(
            f"the declared revision {model.declared} of {model.name} was not rejected, so there is nothing to retry"
        )
    annotations: dict[str, str | None] = {levers.RETRY: token}
    if model.levers.abort == model.declared:
        # It would be taken back again at once.
        annotations[levers.ABORT] = None
    return Pull(annotations, f"{model.declared} is tried again")
