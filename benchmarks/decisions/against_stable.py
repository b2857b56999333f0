"""The comparison with stable: false rollbacks with and without shared troubles, and detection.

The operator's update is mirrored for many runs at once; `check_mirror` holds the mirror to the original.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.decisions import limits, rules
from benchmarks.decisions.traffic import Floats, Ints
from scipy import special

from kedge.decide.statistics import alpha, two_sample

POLLS = 240
"""Twenty minutes at a poll every 5 s."""
STABLE_HISTORY = 60
"""Polls of stable alone before the rollout: five minutes."""
BATCH = 1000


@dataclass(frozen=True)
class Pair:
    """A candidate beside stable."""

    name: str
    requests: float
    """Mean requests a poll to both together."""
    weight: float
    """The candidate's share of them."""
    stable: float
    candidate: float
    tolerance: float = 0.0
    troubles: bool = False
    """Whether every other twenty polls both fail 20 % more of their requests."""
    polls: int = POLLS


EQUAL = (
    Pair("5 a poll, 50:50", 5, 0.5, 0.01, 0.01),
    Pair("5 a poll, 5:95", 5, 0.05, 0.05, 0.05),
    Pair("100 a poll, 5:95", 100, 0.05, 0.01, 0.01),
    Pair("100 a poll, 50:50", 100, 0.5, 0.01, 0.01),
    Pair("100 a poll, at the tolerance", 100, 0.5, 0.01, 0.015, tolerance=0.005),
    Pair("5000 a poll, 5:95", 5000, 0.05, 0.01, 0.01),
    Pair("5000 a poll, at the tolerance", 5000, 0.5, 0.01, 0.015, tolerance=0.005),
    Pair("1000 a poll, shared troubles", 1000, 0.1, 0.002, 0.002, troubles=True),
    Pair("1000 a poll, 95:5, shared troubles", 1000, 0.95, 0.002, 0.002, troubles=True),
    Pair("nothing bad", 100, 0.5, 0.0, 0.0),
)
WORSE = (
    Pair("20 a poll, 5:95, 2x", 20, 0.05, 0.02, 0.04, polls=6000),
    Pair("20 a poll, 5:95, 5x", 20, 0.05, 0.01, 0.05, polls=1200),
    Pair("20 a poll, 5:95, 20x", 20, 0.05, 0.01, 0.2, polls=200),
    Pair("5 a poll, 50:50, 2x", 5, 0.5, 0.02, 0.04, polls=5000),
    Pair("5 a poll, 50:50, 5x", 5, 0.5, 0.01, 0.05, polls=1200),
    Pair("5 a poll, 50:50, 20x", 5, 0.5, 0.01, 0.2, polls=200),
    Pair("5 a poll, 50:50, 100 %", 5, 0.5, 0.01, 1.0, polls=40),
    Pair("20 a poll, 50:50, 5x, 1 % tolerated", 20, 0.5, 0.01, 0.05, tolerance=0.01, polls=600),
    Pair("100 a poll, 5:95, 5x", 100, 0.05, 0.01, 0.05, polls=400),
    Pair("100 a poll, 5:95, 5x with shared troubles", 100, 0.05, 0.01, 0.05, troubles=True, polls=400),
)
TROUBLE = 0.2


@dataclass
class Mirror:
    """`two_sample.TwoSampleState` of many runs, shapes (runs,) and (runs, rungs)."""

    wealth: Floats
    stable_bad: Floats
    stable_total: Floats
    waiting_bad: Floats
    waiting_total: Floats
    waiting_blocks: Ints
    log_e: Floats

    @classmethod
    def new(cls, runs: int) -> Mirror:
        """The state of runs that saw nothing."""
        return cls(
            wealth=np.zeros((runs, len(two_sample.RUNGS))),
            stable_bad=np.zeros(runs),
            stable_total=np.zeros(runs),
            waiting_bad=np.zeros(runs),
            waiting_total=np.zeros(runs),
            waiting_blocks=np.zeros(runs, dtype=np.int64),
            log_e=np.zeros(runs),
        )

    def update(self, candidate: tuple[Ints, Ints], stable: tuple[Ints, Ints], tolerance: float) -> None:
        """One block of every run."""
        silent = stable[1] == 0
        asked = candidate[1] > 0
        bad, total = self.waiting_bad + candidate[0], self.waiting_total + candidate[1]
        judged = ~silent & (total > 0)
        if judged.any():
            self._judge(judged, (bad, total), stable, tolerance)
        waits, gives_up = silent & asked, silent & asked & (self.waiting_blocks >= two_sample.CARRIED_BLOCKS)
        cleared = judged | gives_up
        self.waiting_bad = np.where(cleared, 0.0, np.where(waits, bad, self.waiting_bad))
        self.waiting_total = np.where(cleared, 0.0, np.where(waits, total, self.waiting_total))
        self.waiting_blocks = np.where(cleared, 0, self.waiting_blocks + waits)
        self._learn(~silent, stable)

    def _judge(
        self,
        judged: npt.NDArray[np.bool_],
        candidate: tuple[Floats, Floats],
        stable: tuple[Ints, Ints],
        tolerance: float,
    ) -> None:
        c_bad, c_total, s_bad, s_total = (x[judged][:, None] for x in (*candidate, *stable))
        known = self.stable_total[judged][:, None]
        s = (self.stable_bad[judged][:, None] + two_sample.PRIOR_BAD) / (known + two_sample.PRIOR_TOTAL)
        unknown = s_total / (s_total + known)
        reserve = np.maximum(two_sample.RESERVE, two_sample.FIRST_RESERVE * unknown**2)
        c = np.exp(np.log(s + tolerance) * (1 - np.array(two_sample.RUNGS)))
        s0 = (c_total * (c - tolerance) + s_total * s) / (c_total + s_total)
        if tolerance:
            low, high = np.broadcast_to(s, c.shape).copy(), c - tolerance
            for _ in range(60):
                s0 = 0.5 * (low + high)
                y = s0 + tolerance
                rising = c_total * (c - y) * s0 * (1 - s0) + s_total * (s - s0) * y * (1 - y) > 0
                low, high = np.where(rising, s0, low), np.where(rising, high, s0)
        c0 = s0 + tolerance
        gain = c_bad * np.log(c / c0) + (c_total - c_bad) * np.log((1 - c) / (1 - c0))
        gain += s_bad * np.log(s / s0) + (s_total - s_bad) * np.log((1 - s) / (1 - s0))
        self.wealth[judged] += np.logaddexp(np.log(reserve), np.log1p(-reserve) + gain)
        self.log_e[judged] = special.logsumexp(self.wealth[judged], axis=1) - math.log(len(two_sample.RUNGS))

    def _learn(self, taught: npt.NDArray[np.bool_], stable: tuple[Ints, Ints]) -> None:
        bad, total = stable[0].astype(np.float64), stable[1].astype(np.float64)
        s = (self.stable_bad + two_sample.PRIOR_BAD) / (self.stable_total + two_sample.PRIOR_TOTAL)
        deviance = special.rel_entr(bad, total * s) + special.rel_entr(total - bad, total * (1 - s))
        surprised = deviance > two_sample.SURPRISE
        known_bad = np.where(surprised, 0.0, self.stable_bad) + bad
        known_total = np.where(surprised, 0.0, self.stable_total) + total
        keep = np.minimum(1.0, two_sample.MEMORY_BAD / np.maximum(known_bad, 1e-300))
        self.stable_bad = np.where(taught, known_bad * keep, self.stable_bad)
        self.stable_total = np.where(taught, known_total * keep, self.stable_total)


def check_mirror(seed: int) -> None:
    """Hold the mirror to the operator's own function.

    Raises:
        AssertionError: They differ.
    """
    rng = np.random.default_rng((seed, 5))
    for pair in (EQUAL[1], EQUAL[4], EQUAL[7], WORSE[0]):
        runs = 20
        mirror = Mirror.new(runs)
        states = [two_sample.TwoSampleState()] * runs
        for poll in range(60):
            candidate, stable = _poll(pair, poll, runs, rng)
            mirror.update(candidate, stable, pair.tolerance)
            for i in range(runs):
                states[i] = two_sample.update(
                    states[i],
                    candidate_bad=int(candidate[0][i]),
                    candidate_total=int(candidate[1][i]),
                    stable_bad=int(stable[0][i]),
                    stable_total=int(stable[1][i]),
                    tolerance=pair.tolerance,
                )
            np.testing.assert_allclose(mirror.log_e, [state.log_e for state in states], rtol=1e-7, atol=1e-7)


def _poll(pair: Pair, poll: int, runs: int, rng: np.random.Generator) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
    """The candidate's and stable's bad and all requests in one poll."""
    trouble = TROUBLE if pair.troubles and poll // 20 % 2 else 0.0
    total = rng.poisson(pair.requests, runs)
    ours = rng.binomial(total, pair.weight)
    arms = []
    for requests, fraction in ((ours, pair.candidate), (total - ours, pair.stable)):
        arms.append((rng.binomial(requests, min(1.0, fraction + trouble)), requests))
    return arms[0], arms[1]


def _first_rejections(pair: Pair, runs: int, rng: np.random.Generator) -> Floats:
    """The poll at which each run rejects, from 1, or infinity."""
    limit = alpha.threshold(rules.ALPHA, 1)
    mirror = Mirror.new(runs)
    nobody = np.zeros(runs, dtype=np.int64)
    for _ in range(STABLE_HISTORY):
        _, stable = _poll(pair, 0, runs, rng)
        mirror.update((nobody, nobody), stable, pair.tolerance)
    found = np.full(runs, math.inf)
    for poll in range(pair.polls):
        candidate, stable = _poll(pair, poll, runs, rng)
        mirror.update(candidate, stable, pair.tolerance)
        found = np.where(np.isinf(found) & (mirror.log_e >= limit), poll + 1.0, found)
        if np.isfinite(found).all():
            break
    return found


def _batches(pair: Pair, runs: int, seed: tuple[int, ...]) -> Floats:
    rng = np.random.default_rng(seed)
    sizes = [min(BATCH, runs - start) for start in range(0, runs, BATCH)]
    return np.concatenate([_first_rejections(pair, size, rng) for size in sizes])


def run_equal(runs: int, seed: int) -> list[dict[str, Any]]:
    """How often a candidate that is no worse than tolerated is rolled back."""
    results = []
    for number, pair in enumerate(EQUAL):
        events = int(np.isfinite(_batches(pair, runs, (seed, 6, number))).sum())
        low, high = limits.clopper_pearson(events, runs)
        results.append(
            {
                "pair": dataclasses.asdict(pair),
                "runs": runs,
                "events": events,
                "share": events / runs,
                "low": low,
                "high": high,
            }
        )
    return results


def run_worse(runs: int, seed: int) -> list[dict[str, Any]]:
    """How soon a worse candidate is rolled back, in polls, beside the bound log(1 / alpha) / KL."""
    results = []
    for number, pair in enumerate(WORSE):
        found = _batches(pair, runs, (seed, 7, number))
        median, low, high = limits.median(found)
        w, c, s = pair.weight, pair.candidate, pair.stable
        s0 = two_sample.nearest_in_null(c, s, w, 1 - w, pair.tolerance)
        nats = pair.requests * (w * rules.divergence(c, s0 + pair.tolerance) + (1 - w) * rules.divergence(s, s0))
        results.append(
            {
                "pair": dataclasses.asdict(pair),
                "runs": runs,
                "multiple": round(c / s),
                "bound_polls": None if pair.troubles else alpha.threshold(rules.ALPHA, 1) / nats,
                "median_polls": median,
                "low": low,
                "high": high,
                "missed": float(np.isinf(found).mean()),
            }
        )
    return results
