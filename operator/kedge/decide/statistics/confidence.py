"""An interval for people: where the bad fraction lies, valid at every look at once.

For the true fraction p, the Beta-Bernoulli mixture over the likelihood at p is a martingale, so the set of p
at which it stays under 1/alpha covers the truth at all times with probability 1 - alpha. [Robbins,
"Statistical methods related to the law of the iterated logarithm", 1970; Howard, Ramdas, McAuliffe, Sekhon,
2021.] The mixture is Beta(1/2, 1/2), the minimax one for a fraction of unknown size.

**Nesting.** The interval depends on the totals alone, so replaying them gives the same interval; the price is
that a later one need not lie inside an earlier one. The running intersection covers the truth too, since all
of them do at once: `intersect` forms it for a reader that keeps the last. An empty intersection has
probability at most alpha, and means that the fraction changed while it was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kedge.decide.statistics import beta, checks

_SHAPE = 0.5
_LOG_PRIOR = math.log(math.pi)
"""log B(1/2, 1/2)."""

_LOWEST, _HIGHEST = -690.0, 36.0
"""Log-odds beyond which a fraction is 0 or 1 in floating point."""

_LEAST_TOTAL = 1e-9
"""Fewer events than this, which only a design effect could make, are none."""

_MOST_STEPS = 200


@dataclass(frozen=True)
class Interval:
    """A closed interval of fractions.

    Attributes:
        low: Lower end, between 0 and 1.
        high: Upper end, at least `low`.
    """

    low: float
    high: float

    def intersect(self, other: Interval) -> Interval | None:
        """Return the part common to both, or None where they are disjoint."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Interval(low, high) if low <= high else None


def confidence_sequence(bad: float, total: float, alpha: float) -> Interval:
    """Return the interval that covers the bad fraction at every look, with probability 1 - alpha.

    Args:
        bad: Bad events since the step's baseline; a fraction when a design effect divides the counts.
        total: All events since then.
        alpha: The chance that the truth is ever outside.

    Returns:
        The interval, (0, 1) without data. It always holds `bad / total`; its lower end is exactly 0 without
        a bad event and its upper end exactly 1 without a good one.

    Raises:
        ValueError: Counts or alpha are impossible (see `checks`).
    """
    checks.counts(bad, total)
    checks.open_fraction(alpha, "alpha")
    if total < _LEAST_TOTAL:
        return Interval(0.0, 1.0)
    good = total - bad
    estimate = bad / total
    # The mixture over the likelihood at p is its value at the estimate times exp(deviance at p).
    limit = -math.log(alpha) - _log_martingale_at_estimate(bad, good)
    if limit <= 0.0:
        # Only rounding can put the estimate itself outside: on paper the mixture there is below 1.
        return Interval(estimate, estimate)
    low = _end(bad, good, limit, upwards=False) if bad > 0.0 else 0.0
    high = _end(bad, good, limit, upwards=True) if good > 0.0 else 1.0
    return Interval(min(low, estimate), max(high, estimate))


def _log_martingale_at_estimate(bad: float, good: float) -> float:
    """Return the log of the Beta(1/2, 1/2) mixture over the likelihood at `bad / (bad + good)`."""
    a, b = bad + _SHAPE, good + _SHAPE
    mean = a / (a + b)
    power = _SHAPE * (math.log(mean) + math.log(b / (a + b)))
    return beta.log_beta_over_power(a, b, mean) + power - beta.binomial_deviance(bad, good, mean) - _LOG_PRIOR


def _end(bad: float, good: float, limit: float, *, upwards: bool) -> float:
    """Return the fraction above or below the estimate at which the deviance is `limit`.

    In log-odds the deviance is convex with slope `total * p - bad`, so after one step Newton's method comes
    to the end from outside, without ever leaving it behind.
    """
    total = bad + good
    side = 1.0 if upwards else -1.0
    # A guess from a mean drawn a little inwards, which is never 0 or 1; or from the estimate, should it not lie
    # on the right side of that.
    p, q = (bad + _SHAPE) / (total + 1.0), (good + _SHAPE) / (total + 1.0)
    log_odds = math.log(p / q) + side * math.sqrt(2.0 * limit / (total * p * q))
    if bad > 0.0 and good > 0.0 and side * (log_odds - math.log(bad) + math.log(good)) <= 0.0:
        log_odds = math.log(bad) - math.log(good) + side * math.sqrt(2.0 * limit * total / bad / good)
    for _ in range(_MOST_STEPS):
        log_odds = max(_LOWEST, min(_HIGHEST, log_odds))
        p = 1.0 / (1.0 + math.exp(-log_odds))
        slope = good * p - bad * (1.0 - p)
        if slope == 0.0:
            break
        step = (beta.binomial_deviance(bad, good, p) - limit) / slope
        log_odds -= step
        if abs(step) < 1e-13 * (1.0 + abs(log_odds)):
            break
    if not _LOWEST < log_odds < _HIGHEST:
        return float(upwards)
    return 1.0 / (1.0 + math.exp(-log_odds))
