"""How soon a bad candidate is rolled back: in requests beside the bound, in polls beside other rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from benchmarks.decisions import limits, rules, traffic
from benchmarks.decisions.traffic import Floats, Shape

from kedge.decide.statistics import alpha, ratio

BUDGETS = (1e-6, 1e-4, 1e-3, 0.01, 0.05)
MULTIPLES = (2, 5, 20)
OBJECTIVES = (1, 6)
POLLS = 720
"""An hour at a poll every 5 s."""
BATCH = 500

TRAFFIC = (
    Shape("5 a poll", 5, POLLS, 0.01, 0.0099),
    Shape("50 a poll", 50, POLLS, 0.01, 0.0099),
    Shape("500 a poll", 500, POLLS, 0.01, 0.0099),
)


def run_requests(runs: int, seed: int) -> list[dict[str, Any]]:
    """The median of requests until Kedge fails a candidate, looking at each, over log(k / alpha) / KL."""
    results = []
    for number, (budget, objectives) in enumerate((b, k) for b in BUDGETS for k in OBJECTIVES):
        rng = np.random.default_rng((seed, 3, number))
        limit = alpha.threshold(rules.ALPHA, objectives)
        fractions = [(f"{m}x", m * budget) for m in MULTIPLES if m * budget < 1] + [("100 %", 1.0)]
        for name, fraction in fractions:
            bound = limit / rules.divergence(fraction, budget)
            # Far more bad events than the median needs; runs that need more count as infinite.
            events = math.ceil(8 * bound * fraction) + 20
            arrival = np.cumsum(rng.geometric(fraction, (runs, events)), axis=1)
            known = _first(arrival, _known_boundary(events, fraction, budget, limit))
            median, low, high = limits.median(_first(arrival, _boundary(events, budget, limit)))
            results.append(
                {
                    "budget": budget,
                    "objectives": objectives,
                    "fraction": name,
                    "bound": bound,
                    "median": median,
                    "low": low,
                    "high": high,
                    "oracle": limits.median(known)[0],
                    "runs": runs,
                }
            )
    return results


def _first(arrival: traffic.Ints, largest: Floats) -> Floats:
    """Requests at the first bad event at which the test rejects, shape (runs,)."""
    rejected = arrival <= largest
    return np.where(rejected.any(axis=1), arrival[np.arange(len(arrival)), rejected.argmax(axis=1)], math.inf)


def _boundary(events: int, budget: float, limit: float) -> Floats:
    """For 1, 2, ... bad events, the most requests among which they still reject; 0 where they never do.

    Only a bad event can bring a rejection about, so these are the only looks that matter.
    """
    largest = np.zeros(events)
    for bad in range(1, events + 1):
        low, high = bad - 1, math.ceil(bad / budget)
        while low < high:
            middle = (low + high + 1) // 2
            enough = ratio.log_e_value(bad, middle, budget) >= limit
            low, high = (middle, high) if enough else (low, middle - 1)
        largest[bad - 1] = low if low >= bad else 0
    return largest


def _known_boundary(events: int, fraction: float, budget: float, limit: float) -> Floats:
    """The same for Wald's test of the true fraction."""
    bad = np.arange(1, events + 1)
    if fraction == 1.0:
        return np.where(-bad * math.log(budget) >= limit, bad, 0).astype(np.float64)
    good = (bad * math.log(fraction / budget) - limit) / (math.log1p(-budget) - math.log1p(-fraction))
    return np.where(good >= 0, bad + np.floor(good), 0)


def run_polls(runs: int, seed: int) -> list[dict[str, Any]]:
    """Polls until each rule rolls back, and the share of candidates that it let pass for an hour."""
    results = []
    for number, shape in enumerate(TRAFFIC):
        rng = np.random.default_rng((seed, 4, number))
        cases = [("just inside", 0.99 * shape.budget)]
        cases += [(f"{m}x", m * shape.budget) for m in MULTIPLES] + [("100 %", 1.0)]
        for name, fraction in cases:
            bad_shape = Shape(shape.name, shape.requests, shape.polls, shape.budget, fraction)
            compared = {"Kedge": rules.kedge} | rules.OTHERS
            if fraction > shape.budget:
                compared["known alternative"] = rules.oracle(fraction)
            found: dict[str, list[Floats]] = {rule: [] for rule in compared}
            for start in range(0, runs, BATCH):
                requests = traffic.arrivals(bad_shape, min(BATCH, runs - start), rng)
                bad = traffic.outcomes(bad_shape, requests, rng).cumsum(axis=-1)
                for rule, decide in compared.items():
                    polls = decide(bad, requests.cumsum(axis=-1), shape.budget)
                    found[rule].append(np.where(polls == rules.NEVER, math.inf, polls + 1.0))
            results.append(
                {
                    "requests": shape.requests,
                    "budget": shape.budget,
                    "fraction": name,
                    "runs": runs,
                    "rules": {rule: _summary(np.concatenate(parts)) for rule, parts in found.items()},
                }
            )
    return results


def _summary(polls: Floats) -> dict[str, float | None]:
    median = float(np.sort(polls)[(len(polls) - 1) // 2])
    return {
        "median_polls": median if math.isfinite(median) else None,
        "rolled_back": float(np.isfinite(polls).mean()),
    }
