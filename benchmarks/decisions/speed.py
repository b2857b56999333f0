"""What one whole decision costs: everything from the pods' readings to the next status, on one core."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tests.operator.worlds import World, serving, spec

from kedge.decide import decisions

OBJECTIVES: list[dict[str, Any]] = [
    {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99.5"},
    {"name": "latency", "indicator": {"type": "Latency", "thresholdMilliseconds": 100}, "targetPercent": "99"},
    {"name": "inputs", "indicator": {"type": "ValidInputs"}, "targetPercent": "98", "action": "Alert"},
    {
        "name": "no-worse",
        "indicator": {"type": "Availability"},
        "compareTo": "Stable",
        "tolerancePercent": "0.5",
    },
    {"name": "input-drift", "indicator": {"type": "FeatureDrift"}, "maximum": "0.2", "action": "Alert"},
    {"name": "output-drift", "indicator": {"type": "PredictionDrift"}, "compareTo": "Stable", "maximum": "0.1"},
]
FEATURES, BINS, REPLICAS = 20, 12, 5
REQUESTS = 2000
"""A poll, over all pods."""
DRIFT_SECONDS = 5
"""Histograms at every poll; by default they come at every sixth."""
GOAL_MILLISECONDS = 2.0


def run(runs: int, seed: int) -> list[dict[str, Any]]:
    """Times decisions in the midst of a step: with histograms to compare, to remember only, and without any."""
    rng = np.random.default_rng((seed, 12))
    cases: dict[str, Callable[[decisions.Input], decisions.Input]] = {
        "histograms compared": _looking_again,
        "histograms read": lambda given: given,
        "counters only": _without_histograms,
    }
    spent: dict[str, list[float]] = {name: [] for name in cases}
    world = _world()
    for _ in range(runs):
        _serve(world, rng)
        given = world.given()
        for name, case in cases.items():
            asked = case(given)
            started = time.process_time()
            decisions.decide(asked)
            spent[name].append(1000 * (time.process_time() - started))
        world.tick()
        if world.status.rollout is None or world.status.rollout.phase != "Step":
            raise AssertionError(f"the candidate is good and its step is long, but {world.status.message}")
    return [
        {
            "case": name,
            "objectives": len(OBJECTIVES),
            "features": FEATURES,
            "pods": 2 * REPLICAS,
            "decisions": runs,
            "median_milliseconds": statistics.median(milliseconds),
            "p99_milliseconds": statistics.quantiles(milliseconds, n=100)[98],
        }
        for name, milliseconds in spent.items()
    ]


def _looking_again(given: decisions.Input) -> decisions.Input:
    """Lets the last look at drift have been long ago, so that every histogram is compared now."""
    rollout = given.status.rollout
    assert rollout is not None
    drifts = tuple(one.model_copy(update={"state": {**one.state, "rows": 0.0}}) for one in rollout.memory.drifts)
    memory = rollout.memory.model_copy(update={"drifts": drifts})
    status = given.status.model_copy(update={"rollout": rollout.model_copy(update={"memory": memory})})
    return dataclasses.replace(given, status=status)


def _without_histograms(given: decisions.Input) -> decisions.Input:
    return dataclasses.replace(given, snapshot=dataclasses.replace(given.snapshot, distributions=None))


def _world() -> World:
    declared: dict[str, Any] = {
        "replicas": REPLICAS,
        "objectives": OBJECTIVES,
        "metrics": {"intervalSeconds": 5, "driftIntervalSeconds": DRIFT_SECONDS},
        "rollout": {"steps": [{"weightPercent": 50, "minimumSeconds": 500_000}], "stepDeadlineSeconds": 600_000},
    }
    world = serving(**declared)
    world.declare(spec("2", **declared))
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.serving_since is not None)
    return world


def _serve(world: World, rng: np.random.Generator) -> None:
    for key, bad in (("availability", 0.001), ("latency/100", 0.004), ("validinputs", 0.005)):
        world.serve(requests=REQUESTS, bad=bad, stable_bad=bad, key=key)
    share = REQUESTS // (2 * REPLICAS)
    names = [*(f"feature {number}" for number in range(FEATURES)), "prediction predict"]
    for name in names:
        world.count_rows(name, rng.multinomial(share, [1 / BINS] * BINS).tolist(), reference=[1000] * BINS)


if __name__ == "__main__":
    for one in run(500, 1):
        print(one)
