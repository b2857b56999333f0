"""What a passed test would have caught, so that "no violation" says how much it was worth.

"Ten requests and no error" passes the same rule as ten million; the difference belongs into the evidence.
"""

from __future__ import annotations

import functools
import math

from scipy import special

from kedge.decide.statistics import checks, ratio


def rejection_boundary(total: float, budget: float, alpha: float) -> int | None:
    """Return the fewest bad events among `total` that `ratio` rejects at alpha, or None where none suffice.

    Raises:
        ValueError: An argument is impossible (see `checks`).
    """
    checks.counts(0.0, total)
    checks.open_fraction(budget, "budget")
    checks.open_fraction(alpha, "alpha")
    return _boundary(total, budget, -math.log(alpha))


@functools.lru_cache(maxsize=4096)
def _boundary(total: float, budget: float, limit: float) -> int | None:
    most = math.floor(total)
    if most < 1 or ratio.log_e_value(most, total, budget) < limit:
        return None
    guess = min(most, math.ceil(_near_boundary(total, budget, limit)))
    # The evidence grows with each bad event: the exact count is a step or two away, and bisection covers the rest.
    low, high, reach = 0, most, 1
    while low < high:
        if ratio.log_e_value(guess, total, budget) >= limit:
            high, step = guess, guess - reach
        else:
            low, step = guess + 1, guess + reach
        reach *= 4
        guess = step if low <= step < high else (low + high) // 2
    return high


def _near_boundary(total: float, budget: float, limit: float) -> float:
    """Return about how many bad events reach the limit, by Newton's method from the normal approximation."""
    expected = total * budget
    bad = expected + math.sqrt(2.0 * expected * (1.0 - budget) * (limit + 0.5 * math.log1p(expected))) + 1.0
    for _ in range(4):
        bad = min(bad, total * 0.999)
        if bad <= expected:
            return total
        # What one more bad event adds is about the log of its likelihood ratio at the estimate.
        slope = math.log(bad / expected) - math.log((total - bad) / (total - expected))
        step = (limit - ratio.log_e_value(bad, total, budget)) / slope
        bad += step
        if abs(step) < 0.1:
            break
    return max(0.0, bad)


@functools.lru_cache(maxsize=4096)
def detectable_fraction(total: float, budget: float, alpha: float, power: float = 0.95) -> float | None:
    """Return the smallest true bad fraction that this many requests would have revealed.

    It counts the look at `total` only: having looked before as well can only reveal more.

    Args:
        total: Requests judged, divided by the design effect.
        budget: The largest bad fraction that the objective allows.
        alpha: The chance of a false rejection given to this objective.
        power: With which probability it would have been revealed.

    Returns:
        The fraction, above the budget, or None where not even a candidate that fails every request would
        have been rejected.

    Raises:
        ValueError: An argument is impossible (see `checks`).
    """
    checks.open_fraction(power, "power")
    boundary = rejection_boundary(total, budget, alpha)
    if boundary is None:
        return None
    # P(Binomial(n, p) >= m) = I_p(m, n - m + 1), so the fraction is its inverse in p.
    return float(special.betaincinv(boundary, total - boundary + 1.0, power))
