"""Rules that take a revision back: a person's word, its pods, its answers, its lateness."""

from kedge.api import levers, specs
from kedge.api.conditions import Reason
from kedge.decide.rules import outcomes
from kedge.decide.situations import Outcome, Situation


def the_user_aborts(situation: Situation) -> Outcome | None:
    """A person takes the revision back, whatever the verdicts say."""
    if situation.judged is None or not _can_go_back(situation) or situation.levers.abort != situation.judged:
        return None
    message = f"taken back by the annotation {levers.ABORT}"
    return outcomes.rolled_back(situation, Reason.ABORTED, message)


def the_pods_fail(situation: Situation) -> Outcome | None:
    """Pods that cannot serve are a failure of their revision."""
    if situation.judged is None or not _can_go_back(situation):
        return None
    if situation.trouble is None or not situation.enforces:
        return None
    return outcomes.rolled_back(situation, situation.trouble.reason, situation.trouble.message)


def an_objective_fails(situation: Situation) -> Outcome | None:
    """Measured requests contradict an objective that may roll back."""
    failed = situation.failed(specs.Action.ROLLBACK)
    if failed is None or not situation.enforces or not _can_go_back(situation):
        return None
    message = f"{failed.objective.name}, {failed.message}"
    return outcomes.rolled_back(situation, Reason.OBJECTIVE_FAILED, message, objective=failed.objective.name)


def the_candidates_pods_are_late(situation: Situation) -> Outcome | None:
    """Every wait for pods has a deadline."""
    if situation.ready >= situation.wanted or not situation.pods_are_late:
        return None
    message = outcomes.not_ready_in_time(situation)
    if not situation.enforces:
        return outcomes.wait(situation, Reason.PROGRESS_DEADLINE_EXCEEDED, message, stalled=True)
    return outcomes.rolled_back(situation, Reason.PROGRESS_DEADLINE_EXCEEDED, message)


def _can_go_back(situation: Situation) -> bool:
    """Tells whether there is a revision to go back to from the judged one."""
    return situation.status.previous_revision is not None if situation.guarded else situation.stable is not None
