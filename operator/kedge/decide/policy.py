"""The policy of a rollout: rules in an order that reads as the policy itself.

The first rule that answers decides.
"""

from collections.abc import Callable

from kedge.decide.rules import declaring, failing, gating, moving
from kedge.decide.situations import Outcome, Situation

Rule = Callable[[Situation], Outcome | None]

POLICY: tuple[Rule, ...] = (
    declaring.a_name_is_taken,
    failing.the_user_aborts,
    failing.the_pods_fail,
    failing.an_objective_fails,
    moving.the_guard_ends,
    declaring.the_declared_revision_is_stable,
    declaring.a_retry_is_asked_for,
    declaring.the_declared_revision_was_rejected,
    declaring.another_revision_is_declared,
    declaring.a_new_rollout_is_paused,
    declaring.a_new_revision_is_declared,
    declaring.the_first_revision_serves,
    declaring.the_first_revision_is_awaited,
    failing.the_candidates_pods_are_late,
    gating.pods_are_missing,
    gating.other_pods_linger,
    moving.the_first_step_begins,
    moving.the_candidate_takes_over,
    moving.the_step_starts_to_count,
    gating.an_objective_holds,
    gating.the_rollout_is_paused,
    gating.the_step_is_young,
    gating.data_are_missing,
    gating.approval_is_missing,
    moving.the_next_step_begins,
    moving.promotion_begins,
)


def apply(situation: Situation) -> Outcome:
    """Returns the answer of the first rule that has one."""
    for rule in POLICY:
        outcome = rule(situation)
        if outcome is not None:
            return outcome
    raise AssertionError("the last rule always answers")
