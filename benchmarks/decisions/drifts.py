"""How often unchanged inputs are called drifted, over all features of a model, beside the popular rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.decisions import limits, rules
from benchmarks.decisions.traffic import Floats

from kedge.decide.statistics import drift
from kedge.decide.statistics.drift import Finding, Measure

FEATURES = 20
BINS = 10
SIZES = ((100, 100), (10_000, 100), (1000, 1000), (100_000, 10_000))
"""Rows of the reference and rows compared with it."""
SHIFT = 1.5
"""In the drifted case one feature's outer bins hold this many times their share."""
POPULAR = (0.1, 0.2)
"""Fixed thresholds of PSI in common use."""


def run(runs: int, seed: int) -> list[dict[str, Any]]:
    """Alarms of each rule on models whose features all stayed, and on models of which one feature moved."""
    results = []
    for number, (reference, live) in enumerate(SIZES):
        rng = np.random.default_rng((seed, 11, number))
        alarms = {name: [0, 0] for name in (*Measure, *(f"PSI above {limit:g}" for limit in POPULAR))}
        insufficient = dict.fromkeys(Measure, 0)
        for _ in range(runs):
            shares = rng.dirichlet(np.full(BINS, 3.0), FEATURES)
            before = rng.multinomial(reference, shares)
            for moved, now in enumerate((rng.multinomial(live, shares), rng.multinomial(live, _moved(shares)))):
                pairs = [(b.tolist(), n.tolist()) for b, n in zip(before, now, strict=True)]
                for measure in Measure:
                    findings = [
                        drift.compare(b, n, measure=measure, maximum=0.0, alpha=rules.ALPHA, tests=FEATURES).finding
                        for b, n in pairs
                    ]
                    alarms[measure][moved] += Finding.DRIFTED in findings
                    insufficient[measure] += Finding.INSUFFICIENT_DATA in findings
                largest = max(drift.psi(b, n) for b, n in pairs)
                for limit in POPULAR:
                    alarms[f"PSI above {limit:g}"][moved] += largest > limit
        results.append(
            {
                "reference": reference,
                "live": live,
                "runs": runs,
                "rules": {
                    str(name): {
                        "false": same / runs,
                        "high": limits.clopper_pearson(same, runs)[1],
                        "found": moved / runs,
                        "insufficient": insufficient[Measure(name)] / (2 * runs) if name in list(Measure) else 0.0,
                    }
                    for name, (same, moved) in alarms.items()
                },
            }
        )
    return results


def _moved(shares: Floats) -> Floats:
    """The same features, but the first one's outer bins are fuller."""
    moved = shares.copy()
    moved[0, [0, -1]] *= SHIFT
    moved[0] /= moved[0].sum()
    return moved
