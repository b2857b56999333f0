"""The guard after promotion: the measured time between false alarms, and the delay after a change.

The operator's update is mirrored for many runs at once; `check_mirror` holds the mirror to the original.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from benchmarks.decisions import limits, rules
from benchmarks.decisions.traffic import Floats, Ints
from scipy import special

from kedge.decide.statistics import guard

BUDGET = 0.01
REQUESTS = (5, 50)
"""Requests a poll."""
DECLARED = (200, 1000, 5000)
"""Mean polls between false alarms."""
LONGEST = 6
"""Runs are cut at this many times the declared length, which can only lower their mean."""
MULTIPLES = (2, 5, 20)
MONTH = 30 * 24 * 720
"""Polls in thirty days, at one every 5 s."""
CHANGE = 200
"""Good polls before the change."""
CALIBRATION = 1000


def _step(values: Floats, bad: Ints, requests: int, budget: float) -> Floats:
    """The guard's update of many runs, shape (runs, rungs)."""
    if_bad, if_good = np.array(guard.gains(budget)).T
    together: Floats = np.logaddexp(0.0, values + bad[:, None] * if_bad + (requests - bad)[:, None] * if_good)
    return together


def _log_e(values: Floats) -> Floats:
    together: Floats = special.logsumexp(values, axis=1)
    return together - math.log(values.shape[1])


def check_mirror(seed: int) -> None:
    """Hold the mirror to the operator's own function.

    Raises:
        AssertionError: They differ.
    """
    rng = np.random.default_rng((seed, 8))
    values = np.zeros((20, len(guard.RUNGS)))
    states = [guard.GuardState()] * 20
    for _ in range(80):
        bad = rng.binomial(50, 0.02, 20)
        values = _step(values, bad, 50, BUDGET)
        states = [guard.update(s, bad=b, total=50, budget=BUDGET) for s, b in zip(states, bad.tolist(), strict=True)]
        np.testing.assert_allclose(_log_e(values), [state.log_e for state in states], rtol=1e-9)


def run_lengths(runs: int, seed: int) -> list[dict[str, Any]]:
    """The mean number of polls until an alarm while the fraction stays exactly at its budget."""
    results = []
    for number, (requests, declared) in enumerate((n, d) for n in REQUESTS for d in DECLARED):
        rng = np.random.default_rng((seed, 9, number))
        limit = guard.threshold(declared, 1)
        longest = LONGEST * declared
        length = np.full(runs, longest)
        values = np.zeros((runs, len(guard.RUNGS)))
        alive = np.arange(runs)
        for poll in range(1, longest + 1):
            values = _step(values, rng.binomial(requests, BUDGET, len(alive)), requests, BUDGET)
            alarmed = _log_e(values) >= limit
            if alarmed.any():
                length[alive[alarmed]] = poll
                alive, values = alive[~alarmed], values[~alarmed]
                if not len(alive):
                    break
        mean, low, high = limits.mean(length)
        results.append(
            {
                "requests": requests,
                "declared": declared,
                "runs": runs,
                "mean": mean,
                "low": low,
                "high": high,
                "cut": len(alive) / runs,
            }
        )
    return results


def _gains(fraction: float) -> tuple[float, float]:
    return math.log(fraction / BUDGET), float(np.log1p(-min(fraction, 1 - 1e-12)) - np.log1p(-BUDGET))


def _cusum_constant(fraction: float, requests: int, runs: int, rng: np.random.Generator) -> float:
    """The C in "mean run length = C exp(h)" for CUSUM with level h and a known alternative."""
    if_bad, if_good = _gains(fraction)
    longest = 5 * CALIBRATION
    value = np.zeros(runs)
    peak = np.zeros((longest, runs), dtype=np.float32)
    highest = np.zeros(runs)
    for poll in range(longest):
        bad = rng.binomial(requests, BUDGET, runs)
        value = np.maximum(0.0, value + bad * if_bad + (requests - bad) * if_good)
        highest = np.maximum(highest, value)
        peak[poll] = highest
    low, high = 0.0, math.log(CALIBRATION) + 5
    for _ in range(40):
        level = 0.5 * (low + high)
        mean = float((peak < level).sum(axis=0).mean() + 1)
        low, high = (level, high) if mean < CALIBRATION else (low, level)
    return CALIBRATION / math.exp(high)


def run_delays(runs: int, seed: int) -> list[dict[str, Any]]:
    """Polls from a change to the alarm, beside CUSUM that knows the change and is as rarely wrong."""
    results = []
    cases = [(n, d, m) for n in REQUESTS for d in (CALIBRATION, MONTH) for m in (*MULTIPLES, None)]
    for number, (requests, declared, multiple) in enumerate(cases):
        rng = np.random.default_rng((seed, 10, number))
        fraction = multiple * BUDGET if multiple else 1.0
        level = math.log(declared / _cusum_constant(fraction, requests, min(runs, 300), rng))
        limit = guard.threshold(declared, 1)
        if_bad, if_good = _gains(fraction)
        values = np.zeros((runs, len(guard.RUNGS)))
        cusum = np.zeros(runs)
        bound = math.log(declared) / (requests * rules.divergence(fraction, BUDGET))
        ours, theirs = np.full(runs, math.inf), np.full(runs, math.inf)
        false = np.zeros(runs, dtype=bool)
        for poll in range(-CHANGE + 1, math.ceil(20 * bound) + 50):
            bad = rng.binomial(requests, fraction if poll > 0 else BUDGET, runs)
            values = _step(values, bad, requests, BUDGET)
            cusum = np.maximum(0.0, cusum + bad * if_bad + (requests - bad) * if_good)
            if poll <= 0:
                false |= (_log_e(values) >= limit) | (cusum >= level)
                continue
            ours = np.where(np.isinf(ours) & (_log_e(values) >= limit), poll, ours)
            theirs = np.where(np.isinf(theirs) & (cusum >= level), poll, theirs)
            if np.isfinite(ours).all() and np.isfinite(theirs).all():
                break
        median, low, high = limits.median(ours[~false])
        results.append(
            {
                "requests": requests,
                "declared": declared,
                "fraction": f"{multiple}x" if multiple else "100 %",
                "runs": int((~false).sum()),
                "median": median,
                "low": low,
                "high": high,
                "optimum": limits.median(theirs[~false])[0],
                "bound": bound,
            }
        )
    return results
