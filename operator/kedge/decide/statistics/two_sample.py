"""The candidate against stable on the same period: evidence that a shared slowdown cannot give.

One poll's increments over both revisions are one block. Within a block, for an alternative (c, s) that lies
outside the null "candidate <= stable + tolerance", let (c0, s0) be the member of the null nearest to it in
Kullback-Leibler divergence, weighted by the arms' sizes. The likelihood ratio of (c, s) to (c0, s0) is an
e-variable: its expectation is at most 1 for every pair in the null. [Turner, Ly, Grünwald, "Generic
E-variables for exact sequential k-sample tests that allow for optional stopping", 2024; for a convex null as
here, Turner and Grünwald, "Exact anytime-valid confidence intervals for contingency tables and beyond",
2023.] The argument needs no equal block sizes, and bounds each request's expectation by its tangent, so the
true fractions may change from block to block and from request to request, as long as their averages over a
block lie in the null. Products over blocks are therefore sound under optional stopping when alternatives and
stakes are chosen from past blocks.

Alternatives: stable's fraction is estimated from past blocks, and a ladder of candidate's fractions between
the edge of the null and 1 shares the initial capital; each rung keeps its own product, and their mean is the
e-value. A rung never stakes all it has, so that no single block, such as an outage that both revisions
share, costs it more than a known factor.

What it assumes: how many requests a block has is not chosen by how they turn out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kedge.decide.statistics import beta, checks

VERSION = 1
"""Of the state's meaning. A state of another version must not be continued."""

RUNGS = (0.1, 0.22, 0.36, 0.52, 0.7, 0.95)
"""Alternatives for the candidate, as shares of the way from the edge of the null to 1 on the log scale.
Closer together near the null, where telling neighbours apart decides how long detection takes; few, since each
shares the initial capital with all others."""

RESERVE = 0.03
"""Share of each rung's wealth kept out of every block: costs 3 % of its growth, bounds its loss at 3.5 nats."""

FIRST_RESERVE = 0.5
"""Share kept out of a block when nothing is known of stable yet, and its fraction only guessed."""

PRIOR_BAD = 0.5
PRIOR_TOTAL = 50.0
"""The guess at stable's fraction before any data, worth fifty requests at 1 %."""

MEMORY_BAD = 200.0
"""Bad events of stable that the estimate remembers: 7 % standard error, and it follows slow changes."""

SURPRISE = 6.0
"""Deviance in nats between a block and the estimate at which the estimate starts anew from the block."""

CARRIED_BLOCKS = 12
"""Candidate-only blocks that wait for stable's next requests before they are given up: a minute of polls at
5 s. Longer, and the two revisions would no longer be compared on the same period."""


@dataclass(frozen=True)
class TwoSampleState:
    """What one comparison remembers: finite numbers only, so that JSON carries it exactly.

    Attributes:
        version: Of the fields' meaning.
        log_e: Natural log of the e-value so far.
        log_wealth: Of each rung in `RUNGS`.
        stable_bad: Stable's remembered bad events.
        stable_total: Stable's remembered requests.
        waiting_bad: The candidate's bad events in blocks without a request to stable, not yet counted.
        waiting_total: Its requests in such blocks.
        waiting_blocks: How many such blocks.
    """

    version: int = VERSION
    log_e: float = 0.0
    log_wealth: tuple[float, ...] = (0.0,) * len(RUNGS)
    stable_bad: float = 0.0
    stable_total: float = 0.0
    waiting_bad: float = 0.0
    waiting_total: float = 0.0
    waiting_blocks: int = 0

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> TwoSampleState:
        """Return the state whose `dataclasses.asdict`, through JSON or not, gave `fields`.

        Raises:
            ValueError: The fields are of another version, incomplete or unknown.
        """
        if fields.get("version") != VERSION:
            raise ValueError(f"two-sample state must be of version {VERSION}, got {fields.get('version')!r}")
        try:
            state = cls(**{**fields, "log_wealth": tuple(fields["log_wealth"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"two-sample state does not have the fields of version {VERSION}: {error}") from error
        if len(state.log_wealth) != len(RUNGS):
            raise ValueError(f"two-sample state must have {len(RUNGS)} rungs, got {len(state.log_wealth)}")
        return state


def update(
    state: TwoSampleState,
    *,
    candidate_bad: float,
    candidate_total: float,
    stable_bad: float,
    stable_total: float,
    tolerance: float,
) -> TwoSampleState:
    """Return the state after one block: one poll's increments over both revisions.

    A block without requests to the candidate only teaches the estimate of stable's fraction; it is well to
    feed such blocks before a rollout. A block without requests to stable waits for stable's next ones.

    Args:
        state: What is remembered from past blocks.
        candidate_bad: The candidate's bad events in this block.
        candidate_total: Its requests in this block.
        stable_bad: Stable's bad events in this block.
        stable_total: Its requests in this block.
        tolerance: By how much the candidate's bad fraction may exceed stable's, in [0, 1); the same in
            every block.

    Raises:
        ValueError: A count or the tolerance is impossible (see `checks`), or the state is of another version.
    """
    checks.counts(candidate_bad, candidate_total, name="candidate")
    checks.counts(stable_bad, stable_total, name="stable")
    if not 0.0 <= tolerance < 1.0:
        raise ValueError(f"tolerance must lie in [0, 1), got {tolerance}")
    if state.version != VERSION:
        raise ValueError(f"two-sample state must be of version {VERSION}, got {state.version!r}")

    bad, total = state.waiting_bad + candidate_bad, state.waiting_total + candidate_total
    if stable_total == 0.0:
        return _wait(state, bad, total) if candidate_total > 0.0 else state
    if total > 0.0:
        state = _judge(state, (bad, total), (stable_bad, stable_total), tolerance)
    return _learn(state, stable_bad, stable_total)


def _wait(state: TwoSampleState, bad: float, total: float) -> TwoSampleState:
    """Keep the candidate's requests for stable's next ones, or give them up when they grew old."""
    if state.waiting_blocks + 1 > CARRIED_BLOCKS:
        return replace(state, waiting_bad=0.0, waiting_total=0.0, waiting_blocks=0)
    return replace(state, waiting_bad=bad, waiting_total=total, waiting_blocks=state.waiting_blocks + 1)


def _judge(
    state: TwoSampleState, candidate: tuple[float, float], stable: tuple[float, float], tolerance: float
) -> TwoSampleState:
    """Multiply each rung's wealth by its stake's outcome in a block with requests to both."""
    remembered = state.stable_total
    expected = (state.stable_bad + PRIOR_BAD) / (remembered + PRIOR_TOTAL)
    unknown = stable[1] / (stable[1] + remembered)
    reserve = max(RESERVE, FIRST_RESERVE * unknown * unknown)
    edge = expected + tolerance
    wealth = state.log_wealth
    if edge < 1.0:
        log_edge = math.log(edge)
        wealth = tuple(
            log_wealth
            + _add(
                math.log(reserve),
                math.log1p(-reserve)
                + _log_e_variable(math.exp(log_edge * (1.0 - rung)), expected, candidate, stable, tolerance),
            )
            for log_wealth, rung in zip(state.log_wealth, RUNGS, strict=True)
        )
    largest = max(wealth)
    mean = math.fsum(math.exp(value - largest) for value in wealth) / len(wealth)
    return replace(
        state,
        log_e=largest + math.log(mean),
        log_wealth=wealth,
        waiting_bad=0.0,
        waiting_total=0.0,
        waiting_blocks=0,
    )


def _learn(state: TwoSampleState, bad: float, total: float) -> TwoSampleState:
    """Add a block to what is known of stable, forgetting what is old or was contradicted."""
    known_bad, known_total = state.stable_bad, state.stable_total
    expected = (known_bad + PRIOR_BAD) / (known_total + PRIOR_TOTAL)
    if beta.binomial_deviance(bad, total - bad, expected) > SURPRISE:
        known_bad = known_total = 0.0
    known_bad, known_total = known_bad + bad, known_total + total
    keep = min(1.0, MEMORY_BAD / known_bad) if known_bad > 0.0 else 1.0
    return replace(state, stable_bad=known_bad * keep, stable_total=known_total * keep)


def _log_e_variable(
    c: float, s: float, candidate: tuple[float, float], stable: tuple[float, float], tolerance: float
) -> float:
    """Return the log likelihood ratio of (c, s) to the nearest pair in the null, on one block."""
    s0 = nearest_in_null(c, s, candidate[1], stable[1], tolerance)
    c0 = s0 + tolerance
    return _log_ratio(*candidate, c, c0) + _log_ratio(*stable, s, s0)


def _log_ratio(bad: float, total: float, alternative: float, null: float) -> float:
    return bad * math.log(alternative / null) + (total - bad) * math.log((1.0 - alternative) / (1.0 - null))


def nearest_in_null(c: float, s: float, candidate_total: float, stable_total: float, tolerance: float) -> float:
    """Return stable's fraction in the pair (x + tolerance, x) that is nearest to (c, s).

    The divergence is convex in x, with its minimum where
    `n_c (c - y) x (1 - x) + n_s (s - x) y (1 - y) = 0` for y = x + tolerance, between s and c - tolerance.
    """
    pooled = (candidate_total * (c - tolerance) + stable_total * s) / (candidate_total + stable_total)
    if tolerance == 0.0:
        return pooled
    low, high = s, c - tolerance
    x = pooled
    for _ in range(200):
        y = x + tolerance
        slope_c, slope_s = x * (1.0 - x), y * (1.0 - y)
        value = candidate_total * (c - y) * slope_c + stable_total * (s - x) * slope_s
        if value > 0.0:
            low = x
        else:
            high = x
        derivative = (
            candidate_total * ((c - y) * (1.0 - 2.0 * x) - slope_c)
            + stable_total * ((s - x) * (1.0 - 2.0 * y) - slope_s)
        )  # fmt: skip
        step = x - value / derivative if derivative != 0.0 else low
        if not low < step < high:
            step = 0.5 * (low + high)
        if abs(step - x) <= 1e-15 * step or step in (low, high):
            return step
        x = step
    return x


def _add(first: float, second: float) -> float:
    """Return log(exp(first) + exp(second))."""
    larger = max(first, second)
    return larger + math.log1p(math.exp(-abs(first - second)))
