"""A bad fraction against its budget: evidence that may be looked at after every request.

For each p above the budget b, the likelihood ratio `(p/b)**bad * ((1-p)/(1-b))**good` is a supermartingale
whenever every request is bad with conditional probability at most b. So is its average over any prior on
(b, 1), and by Ville's inequality that average ever reaches 1/alpha with probability at most alpha, however
often and whenever one looks. [Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric,
nonasymptotic confidence sequences", 2021; Waudby-Smith, Ramdas, "Estimating means of bounded random
variables by betting", 2024.]

The value depends on the totals alone, never on how they arrived in polls.
"""

from __future__ import annotations

import functools
import math

from kedge.decide.statistics import beta, checks

SHAPE_BAD = -0.2
"""First shape of the prior; truncated above 0, it may be negative. 0 would be flat in log p, with the same power
at every multiple of the budget; a little below favours small multiples, which take longest to find."""

_LEAST_SHAPE = 0.01
"""So near to 0 a shape is taken as `-_LEAST_SHAPE`, where the integral is computed by a division by it. That is
about a fifth of a bad event, which only a design effect makes, and errs towards less evidence."""

SHAPE_GOOD = 1.0
"""Second shape of the prior: 1 favours no fraction near 1 over another."""

TOTAL_FAILURE_WEIGHT = 0.15
"""The prior's mass on "every request is bad", the commonest fault of a release, and cheap to insure:
it costs the other alternatives a sixth of one nat."""


@functools.lru_cache(maxsize=1024)
def _log_prior_mass(budget: float) -> float:
    return beta.log_tail_over_power(SHAPE_BAD, SHAPE_GOOD, budget)


def log_e_value(bad: float, total: float, budget: float) -> float:
    """Return the log e-value against "the bad fraction is at most the budget".

    Args:
        bad: Bad events since the step's baseline; a fraction when a design effect divides the counts.
        total: All events since then.
        budget: The largest bad fraction that the objective allows, between 0 and 1.

    Returns:
        The natural log of the e-value: 0 without data, larger with each bad event, smaller with each good
        one. Reject at `alpha.threshold(...)` or above.

    Raises:
        ValueError: Counts or budget are impossible (see `checks`).
    """
    checks.counts(bad, total)
    checks.open_fraction(budget, "budget")
    good = total - bad
    if total == 0.0:
        return 0.0
    # Both terms divide by the integrand's power at the budget, which turns integrals into likelihood ratios.
    shape = SHAPE_BAD + bad
    shape = shape if abs(shape) >= _LEAST_SHAPE else -_LEAST_SHAPE
    mixture = beta.log_tail_over_power(shape, SHAPE_GOOD + good, budget) - _log_prior_mass(budget)
    result = math.log1p(-TOTAL_FAILURE_WEIGHT) + mixture
    if good > 0.0:
        return result
    every = math.log(TOTAL_FAILURE_WEIGHT) - bad * math.log(budget)
    return max(result, every) + math.log1p(math.exp(-abs(result - every)))
