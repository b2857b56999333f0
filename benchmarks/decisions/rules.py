"""The rules compared: each gives the poll at which it rolls back, or NEVER.

Kedge's rule calls the operator's own functions. The others are written from their documented behaviour.
All take cumulated counts of shape (objectives, runs, polls) and requests of shape (runs, polls).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from benchmarks.decisions.traffic import POLLS_A_MINUTE, Floats, Ints
from scipy import special

from kedge.decide.statistics import alpha, ratio

NEVER = np.iinfo(np.int64).max
ALPHA = 0.01
"""The declared chance of rolling a good candidate back."""

Rule = Callable[[Ints, Ints, float], Ints]


def first(failing: npt.ArrayLike) -> Ints:
    """The index of the first True along the last axis, or NEVER."""
    found = np.asarray(failing)
    return np.where(found.any(axis=-1), found.argmax(axis=-1), NEVER)


def _largest_log_likelihood_ratio(bad: Floats, total: Floats, budget: float) -> Floats:
    """What no mixture can exceed: n KL(estimate || budget) where the estimate is over the budget."""
    estimate = np.divide(bad, total, out=np.zeros_like(bad), where=total > 0)
    value = special.xlogy(bad, estimate / budget) + special.xlogy(total - bad, (1 - estimate) / (1 - budget))
    return np.where(estimate > budget, value, -math.inf)


def kedge(bad: Ints | Floats, requests: Ints | Floats, budget: float) -> Ints:
    """The e-process against the target at every poll, alpha shared over the objectives."""
    objectives, runs, _ = bad.shape
    limit = alpha.threshold(ALPHA, objectives)
    totals = np.asarray(requests, dtype=np.float64)
    result = np.full(runs, NEVER)
    for counts in np.asarray(bad, dtype=np.float64):
        # The operator's function decides; this only spares it the looks at which it cannot reject.
        hopeful = _largest_log_likelihood_ratio(counts, totals, budget) >= limit
        for run in np.flatnonzero(hopeful.any(axis=1)):
            for poll in np.flatnonzero(hopeful[run]):
                if poll >= result[run]:
                    break
                if ratio.log_e_value(counts[run, poll], totals[run, poll], budget) >= limit:
                    result[run] = poll
                    break
    return result


def _windows(counts: Ints, polls: int) -> Ints:
    """Increments over successive windows of `polls` polls, along the last axis."""
    ends = counts[..., polls - 1 :: polls]
    return np.diff(ends, axis=-1, prepend=0)


def _at_poll(window: Ints, polls: int) -> Ints:
    return np.where(window == NEVER, NEVER, (np.where(window == NEVER, 0, window) + 1) * polls - 1)


def argo(limit: int) -> Rule:
    """Argo Rollouts: a metric of the last minute each minute; more than `failureLimit` breaches abort.

    No data counts as no breach here, which is kinder than its expressions are by themselves.
    """

    def rule(bad: Ints, requests: Ints, budget: float) -> Ints:
        window_bad, window_total = _windows(bad, POLLS_A_MINUTE), _windows(requests, POLLS_A_MINUTE)
        breaches = np.cumsum(window_bad > budget * window_total, axis=-1)
        return _at_poll(first((breaches > limit).any(axis=0)), POLLS_A_MINUTE)

    return rule


def flagger(threshold: int) -> Rule:
    """Flagger: all metrics of the last minute each minute; `threshold` failed checks in all roll back.

    Passes never reset its counter, and a check without data fails.
    """

    def rule(bad: Ints, requests: Ints, budget: float) -> Ints:
        window_bad, window_total = _windows(bad, POLLS_A_MINUTE), _windows(requests, POLLS_A_MINUTE)
        failed = (window_bad > budget * window_total).any(axis=0) | (window_total == 0)
        return _at_poll(first(np.cumsum(failed, axis=-1) >= threshold), POLLS_A_MINUTE)

    return rule


def z_test(bad: Ints, requests: Ints, budget: float) -> Ints:
    """A one-sided z-test at 1 % of all requests so far, repeated at every poll, shared over the objectives."""
    critical = special.ndtri(1 - ALPHA / len(bad))
    excess = bad - budget * requests
    breached = (excess > critical * np.sqrt(budget * (1 - budget) * requests)).any(axis=0)
    return first(breached & (requests > 0))


def oracle(fraction: float) -> Rule:
    """Wald's test by somebody who knows the true bad fraction: nobody can be faster at the same guarantee."""

    def rule(bad: Ints, requests: Ints, budget: float) -> Ints:
        good = requests - bad
        value = special.xlogy(bad, fraction / budget) + special.xlogy(good, (1 - fraction) / (1 - budget))
        return first((value >= alpha.threshold(ALPHA, len(bad))).any(axis=0))

    return rule


def divergence(fraction: float, budget: float) -> float:
    """KL(fraction || budget) in nats a request."""
    return float(special.rel_entr(fraction, budget) + special.rel_entr(1 - fraction, 1 - budget))


OTHERS: dict[str, Rule] = {
    "Argo Rollouts, failureLimit 0": argo(0),
    "Argo Rollouts, failureLimit 3": argo(3),
    "Flagger, threshold 5": flagger(5),
    "z-test at every poll": z_test,
}
