"""How often each rule rolls a good candidate back, looking at every poll."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.decisions import limits, rules, traffic
from benchmarks.decisions.traffic import Floats, Shape

from kedge.decide.statistics import design_effect

POLLS = 360
"""Half an hour at a poll every 5 s."""

BATCH = 500

SHAPES = (
    Shape("5 a poll", 5, POLLS, 0.01, 0.0099),
    Shape("5 a poll, budget 5 %", 5, POLLS, 0.05, 0.0495),
    Shape("20 a poll, nothing bad", 20, POLLS, 0.01, 0.0),
    Shape("50 a poll", 50, POLLS, 0.01, 0.0099),
    Shape("50 a poll, half the budget", 50, POLLS, 0.01, 0.005),
    Shape("500 a poll, half the budget", 500, POLLS, 0.01, 0.005),
    Shape("500 a poll, a tenth of the budget", 500, POLLS, 0.01, 0.001),
    Shape("50 a poll, 3 objectives", 50, POLLS, 0.01, 0.0099, objectives=3),
    Shape("50 a poll, 6 objectives", 50, POLLS, 0.01, 0.0099, objectives=6),
    Shape("500 a poll", 500, POLLS, 0.005, 0.00495),
    Shape("500 a poll, 6 objectives", 500, POLLS, 0.01, 0.0099, objectives=6),
    Shape("5000 a poll", 5000, POLLS, 0.001, 0.00099),
    Shape("5000 a poll, budget 0.01 %", 5000, POLLS, 1e-4, 0.99e-4),
    Shape("5000 a poll, budget 50 %", 5000, POLLS, 0.5, 0.495),
    Shape("steps of weight", 50, POLLS, 0.01, 0.0099, pattern="steps"),
    Shape("tides of traffic", 50, POLLS, 0.01, 0.0099, pattern="tides"),
    Shape("gaps between batches", 50, POLLS, 0.01, 0.0099, pattern="gaps"),
)


@dataclass(frozen=True)
class Bursts:
    """Traffic whose outcomes come in bursts that both revisions share."""

    name: str
    candidate: float
    """Mean requests a poll to the candidate."""
    stable: float
    effect: float
    """The design effect of stable's polls."""
    lasting: int = 1
    """Polls that a burst lasts."""
    level: float = 0.7
    """The mean bad fraction, as a share of the budget."""


BURSTS = (
    Bursts("bursts of one poll, effect 2", 50, 950, 2.0),
    Bursts("bursts of one poll, effect 5", 50, 950, 5.0),
    Bursts("bursts of one poll, effect 5, at the budget", 50, 950, 5.0, level=0.99),
    Bursts("bursts of one poll, effect 20", 500, 500, 20.0),
    Bursts("bursts of one poll, candidate with 95 %", 950, 50, 2.0),
    Bursts("bursts of six polls, effect 5", 500, 500, 5.0, lasting=6),
)
BUDGET = 0.01
STABLE_HISTORY = 60
"""Polls of stable alone before the rollout: five minutes."""


def run(runs: int, seed: int) -> list[dict[str, Any]]:
    """Every rule on every shape of independent traffic."""
    compared = {"Kedge": rules.kedge} | rules.OTHERS
    results = []
    for number, shape in enumerate(SHAPES):
        rng = np.random.default_rng((seed, 1, number))
        events = dict.fromkeys(compared, 0)
        for start in range(0, runs, BATCH):
            requests = traffic.arrivals(shape, min(BATCH, runs - start), rng)
            bad = traffic.outcomes(shape, requests, rng).cumsum(axis=-1)
            for name, rule in compared.items():
                events[name] += int((rule(bad, requests.cumsum(axis=-1), shape.budget) != rules.NEVER).sum())
        results.append(
            {
                "shape": dataclasses.asdict(shape),
                "runs": runs,
                "rules": {name: _share(count, runs) for name, count in events.items()},
            }
        )
    return results


def run_bursts(runs: int, seed: int) -> list[dict[str, Any]]:
    """Kedge on correlated traffic, with and without dividing by the design effect."""
    results = []
    for number, bursts in enumerate(BURSTS):
        rng = np.random.default_rng((seed, 2, number))
        plain = corrected = 0
        effects: list[float] = []
        for start in range(0, runs, BATCH):
            some = min(BATCH, runs - start)
            fractions = traffic.burst_fractions(
                BUDGET * bursts.level,
                bursts.effect,
                bursts.stable,
                STABLE_HISTORY + POLLS,
                runs=some,
                lasting=bursts.lasting,
                rng=rng,
            )
            stable_total = rng.poisson(bursts.stable, fractions.shape)
            stable_bad = rng.binomial(stable_total, fractions)
            total = rng.poisson(bursts.candidate, (some, POLLS))
            bad = rng.binomial(total, fractions[:, STABLE_HISTORY:])
            divisor = _effects(stable_bad, stable_total, total)[:, STABLE_HISTORY:]
            effects.append(float(np.median(divisor[:, -1])))
            bad, total = bad.cumsum(axis=-1), total.cumsum(axis=-1)
            plain += int((rules.kedge(bad[None], total, BUDGET) != rules.NEVER).sum())
            discounted = rules.kedge((bad / divisor)[None], total / divisor, BUDGET)
            corrected += int((discounted != rules.NEVER).sum())
        results.append(
            {
                "bursts": dataclasses.asdict(bursts),
                "runs": runs,
                "median_effect": round(float(np.median(effects)), 2),
                "plain": _share(plain, runs),
                "corrected": _share(corrected, runs),
            }
        )
    return results


def _effects(bad: traffic.Ints, total: traffic.Ints, judged: traffic.Ints) -> Floats:
    """The operator's estimate after each poll, shape of `bad`, for polls as large as the candidate's so far."""
    result = np.ones(bad.shape)
    before = bad.shape[1] - judged.shape[1]
    sizes = judged.cumsum(axis=1) / np.arange(1, judged.shape[1] + 1)
    for row in range(len(bad)):
        spread = design_effect.Spread()
        for poll, (b, n) in enumerate(zip(bad[row].tolist(), total[row].tolist(), strict=True)):
            spread = design_effect.add(spread, b, n)
            if poll >= before:
                result[row, poll] = design_effect.design_effect(spread, poll_size=float(sizes[row, poll - before]))
    return result


def _share(events: int, runs: int) -> dict[str, float]:
    low, high = limits.clopper_pearson(events, runs)
    return {"events": events, "share": events / runs, "low": low, "high": high}
