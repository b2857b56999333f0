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
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize

from kedge.decide.statistics import beta, checks

_SHAPE = 0.5
_LOG_PRIOR = math.log(math.pi)
"""log B(1/2, 1/2)."""


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


def _log_martingale(bad: float, good: float, fraction: float) -> float:
    """Return the log of the Beta(1/2, 1/2) mixture over the likelihood at `fraction`."""
    power = _SHAPE * (math.log(fraction) + math.log1p(-fraction))
    return beta.log_beta_over_power(bad + _SHAPE, good + _SHAPE, fraction) + power - _LOG_PRIOR


def _crossing(evidence: Callable[[float], float], inside: float, outside: float) -> float:
    """Return the fraction between the two, on the scale of log-odds, at which the evidence is zero."""

    def at(log_odds: float) -> float:
        return evidence(_fraction(log_odds))

    root = optimize.brentq(at, _log_odds(inside), _log_odds(outside), xtol=1e-12, rtol=1e-12)
    return _fraction(float(root))


def _log_odds(fraction: float) -> float:
    return math.log(fraction) - math.log1p(-fraction)


def _fraction(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))


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
    if total == 0.0:
        return Interval(0.0, 1.0)
    good = total - bad
    limit = -math.log(alpha)

    def evidence(fraction: float) -> float:
        return _log_martingale(bad, good, fraction) - limit

    smallest = 1e-300
    largest = 1.0 - 2.0**-53
    estimate = min(max(bad / total, smallest), largest)
    if evidence(estimate) >= 0.0:
        # Only rounding can put the estimate itself outside: the evidence there is negative on paper.
        return Interval(estimate, estimate)
    low = high = estimate
    low = _crossing(evidence, estimate, smallest) if bad > 0.0 and evidence(smallest) > 0.0 else 0.0
    high = _crossing(evidence, estimate, largest) if good > 0.0 and evidence(largest) > 0.0 else 1.0
    return Interval(min(low, bad / total), max(high, bad / total))
