"""Simulated traffic: how many requests each poll brings, and how many of them are bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Pattern = Literal["steady", "steps", "tides", "gaps"]

POLLS_A_MINUTE = 12
"""A poll every 5 s."""


@dataclass(frozen=True)
class Shape:
    """One shape of traffic to a candidate during a rollout."""

    name: str
    requests: float
    """Mean requests a poll."""
    polls: int
    budget: float
    fraction: float
    """The true bad fraction of every objective."""
    objectives: int = 1
    pattern: Pattern = "steady"


def rates(shape: Shape) -> Floats:
    """Mean requests at each poll, shape (polls,)."""
    poll = np.arange(shape.polls)
    match shape.pattern:
        case "steady":
            factor = np.ones(shape.polls)
        case "steps":  # 5 %, 25 %, 50 %, 100 % of the traffic
            factor = np.array([0.05, 0.25, 0.5, 1.0])[poll * 4 // shape.polls] / 0.45
        case "tides":  # a day's rise and fall, compressed into twenty minutes
            factor = 1.0 + 0.8 * np.sin(2 * np.pi * poll / (20 * POLLS_A_MINUTE))
        case "gaps":  # nine polls of silence, then ten polls' worth at once
            factor = np.where(poll % 10 == 9, 10.0, 0.0)
    return np.asarray(shape.requests * factor, dtype=np.float64)


def arrivals(shape: Shape, runs: int, rng: np.random.Generator) -> Ints:
    """Requests at each poll of each run, shape (runs, polls)."""
    return rng.poisson(rates(shape), (runs, shape.polls))


def outcomes(shape: Shape, requests: Ints, rng: np.random.Generator) -> Ints:
    """Bad requests of each objective at each poll, shape (objectives, runs, polls)."""
    return rng.binomial(requests, shape.fraction, (shape.objectives, *requests.shape))


def burst_fractions(
    mean: float, effect: float, requests: float, polls: int, *, runs: int, lasting: int, rng: np.random.Generator
) -> Floats:
    """Bad fractions that both revisions share, poll by poll, shape (runs, polls).

    Args:
        mean: The mean bad fraction.
        effect: The design effect that they give to polls of `requests` requests.
        requests: See `effect`.
        polls: Polls in a run.
        runs: Runs.
        lasting: For how many polls a fraction stays before the next is drawn.
        rng: The source of chance.
    """
    correlation = (effect - 1.0) / (requests - 1.0)
    weight = 1.0 / correlation - 1.0
    drawn = rng.beta(mean * weight, (1.0 - mean) * weight, (runs, -(-polls // lasting)))
    return np.repeat(drawn, lasting, axis=1)[:, :polls]
