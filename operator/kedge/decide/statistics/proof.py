"""The rule `passWhen: Proven`: the objective is shown to be met, rather than not shown to be missed."""

from __future__ import annotations

import math

from kedge.decide.statistics import checks, confidence


def proven(bad: float, total: float, budget: float, alpha: float) -> bool:
    """Return whether the whole confidence sequence lies within the budget.

    A candidate whose bad fraction exceeds the budget is ever called proven with probability at most alpha,
    however often this is asked.

    Raises:
        ValueError: Counts, budget or alpha are impossible (see `checks`).
    """
    checks.open_fraction(budget, "budget")
    return confidence.confidence_sequence(bad, total, alpha).high <= budget


def fewest_requests(budget: float, alpha: float) -> int:
    """Return how many requests without a single bad one prove the objective: a lower bound on the wait.

    Raises:
        ValueError: Budget or alpha are impossible (see `checks`).
    """
    checks.open_fraction(budget, "budget")
    checks.open_fraction(alpha, "alpha")
    low, high = 0, 1
    while not proven(0.0, high, budget, alpha):
        low, high = high, 2 * high
        if high > checks.LARGEST_COUNT:
            raise ValueError(f"budget {budget} is too small to be proven by any countable number of requests")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proven(0.0, middle, budget, alpha) else (middle, high)
    return math.ceil(high)
