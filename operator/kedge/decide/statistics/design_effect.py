"""How much less a request tells when outcomes come in bursts.

Requests within a poll or from one client fail together, so n of them carry the information of n / d
independent ones; d is the design effect. [Kish, "Survey Sampling", 1965.] It is estimated from the stable
revision's own polls as Pearson's dispersion: the spread of bad events between polls, relative to the spread
that independent requests would show. Both tests then take counts divided by it.

What this cannot do: it is an estimate, so with it the bound on false rollbacks is approximate rather than
exact, and correlation that lasts longer than the polls remembered is not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kedge.decide.statistics import checks

VERSION = 1

REMEMBERED_POLLS = 360.0
"""Half an hour of polls at 5 s: long enough for a steady estimate, short enough that yesterday's incident
does not weaken today's tests."""

PRIOR_POLLS = 8.0
"""Polls' worth of the belief that requests are independent, which steadies the estimate from a few polls."""

LARGEST = 50.0
"""More than this is no correlation but an incident, and would only blind the tests to a broken candidate."""


@dataclass(frozen=True)
class Spread:
    """What is remembered of stable's polls for one indicator: finite numbers only.

    Attributes:
        version: Of the fields' meaning.
        polls: Polls with requests, older ones counting less.
        bad: Their bad events.
        total: Their requests.
        squares: The sum over polls of `bad**2 / total`.
    """

    version: int = VERSION
    polls: float = 0.0
    bad: float = 0.0
    total: float = 0.0
    squares: float = 0.0


def add(spread: Spread, bad: float, total: float) -> Spread:
    """Return the spread with one more poll; a poll without requests says nothing.

    Args:
        spread: What is remembered.
        bad: Bad events in this poll.
        total: Requests in this poll.

    Raises:
        ValueError: Counts are impossible (see `checks`), or the spread is of another version.
    """
    checks.counts(bad, total)
    if spread.version != VERSION:
        raise ValueError(f"spread must be of version {VERSION}, got {spread.version!r}")
    if total == 0.0:
        return spread
    polls = spread.polls + 1.0
    keep = min(1.0, REMEMBERED_POLLS / polls)
    return Spread(
        polls=polls * keep,
        bad=(spread.bad + bad) * keep,
        total=(spread.total + total) * keep,
        squares=(spread.squares + bad * (bad / total)) * keep,
    )


def design_effect(spread: Spread, *, poll_size: float | None = None) -> float:
    """Return by what counts are to be divided: at least 1, at most `LARGEST`; 1 until spread has been seen.

    Args:
        spread: What is remembered of stable's polls.
        poll_size: Mean requests in a poll of what is to be judged. Where whole polls fail together, the effect
            grows with the poll as 1 + (n - 1) rho, so polls larger than stable's need a larger one. It is never
            made smaller for smaller polls: clients that send a few requests each give the same effect to all.

    Raises:
        ValueError: `poll_size` is negative, NaN or infinite.
    """
    if poll_size is not None:
        checks.number(poll_size, "poll_size", low=0.0)
    if spread.polls <= 1.0 or not 0.0 < spread.bad < spread.total:
        return 1.0
    fraction = spread.bad / spread.total
    # The sum over polls of (bad - total * fraction)**2 / total, without keeping the polls.
    between = max(0.0, spread.squares - spread.bad * fraction)
    dispersion = between / (fraction * (1.0 - fraction))
    estimate = max(1.0, (dispersion + PRIOR_POLLS) / (spread.polls - 1.0 + PRIOR_POLLS))
    stable_size = spread.total / spread.polls
    if poll_size is not None and stable_size > 1.0 and poll_size > stable_size:
        estimate = 1.0 + (estimate - 1.0) * (poll_size - 1.0) / (stable_size - 1.0)
    return min(LARGEST, estimate) if math.isfinite(estimate) else LARGEST
