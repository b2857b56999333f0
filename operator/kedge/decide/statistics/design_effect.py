"""How much less a request tells when outcomes come in bursts.

Requests within a poll or from one client fail together, so n of them carry the information of n / d
independent ones; d is the design effect. [Kish, "Survey Sampling", 1965.] It is estimated from the stable
revision's own polls as Pearson's dispersion: the spread of bad events between polls, relative to the spread
that independent requests would show. The same is done for blocks of polls, since a burst that outlasts a poll
shows only there, and the larger of both is taken. The tests then take counts divided by it.

What this cannot do: it is an estimate, so with it the bound on false rollbacks is approximate rather than
exact, and bursts that outlast a block, or that stable has not seen yet, are not corrected for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kedge.decide.statistics import checks

VERSION = 1
"""Of the state's meaning. A state of another version must not be continued."""

BLOCK_POLLS = 12
"""Polls in a block: a minute at 5 s, about what a hiccup of a dependency lasts."""

REMEMBERED_POLLS = 360.0
"""Half an hour of polls at 5 s: long enough for a steady estimate, short enough that yesterday's incident
does not weaken today's tests."""

PRIOR = 4.0
"""How many polls, or blocks, the belief that requests are independent is worth: it steadies the estimate while
few were seen."""

LARGEST = 50.0
"""More than this is no correlation but an incident, and would only blind the tests to a broken candidate."""


@dataclass(frozen=True)
class Moments:
    """Sums over polls, or over blocks of polls, older ones counting less.

    Attributes:
        count: How many.
        bad: Their bad events.
        total: Their requests.
        squares: The sum of `bad**2 / total` over them.
    """

    count: float = 0.0
    bad: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, bad: float, total: float, *, remembered: float) -> Moments:
        """Return the sums with one more, which pushes out what exceeds `remembered`."""
        count = self.count + 1.0
        keep = min(1.0, remembered / count)
        return Moments(
            count=count * keep,
            bad=(self.bad + bad) * keep,
            total=(self.total + total) * keep,
            squares=(self.squares + bad * (bad / total)) * keep,
        )

    def effect(self, size: float) -> float:
        """Return the design effect for what has `size` requests where these have their mean, at least 1."""
        if self.count <= 1.0 or not 0.0 < self.bad < self.total:
            return 1.0
        fraction = self.bad / self.total
        # The sum of (bad - total * fraction)**2 / total, without keeping each.
        between = max(0.0, self.squares - self.bad * fraction)
        dispersion = between / (fraction * (1.0 - fraction))
        estimate = max(1.0, (dispersion + PRIOR) / (self.count - 1.0 + PRIOR))
        own = self.total / self.count
        return 1.0 + (estimate - 1.0) * (size - 1.0) / (own - 1.0) if size > own > 1.0 else estimate


@dataclass(frozen=True)
class Spread:
    """What is remembered of stable's polls for one indicator: finite numbers only.

    Attributes:
        version: Of the fields' meaning.
        polls: Over polls with requests.
        blocks: Over blocks of `BLOCK_POLLS` such polls.
        filling_polls: Polls in the block that is being filled.
        filling_bad: Its bad events.
        filling_total: Its requests.
    """

    version: int = VERSION
    polls: Moments = Moments()
    blocks: Moments = Moments()
    filling_polls: int = 0
    filling_bad: float = 0.0
    filling_total: float = 0.0

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Spread:
        """Return the spread whose `dataclasses.asdict`, through JSON or not, gave `fields`.

        Raises:
            ValueError: The fields are of another version, incomplete or unknown.
        """
        if fields.get("version") != VERSION:
            raise ValueError(f"spread must be of version {VERSION}, got {fields.get('version')!r}")
        try:
            return cls(**{**fields, "polls": Moments(**fields["polls"]), "blocks": Moments(**fields["blocks"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"spread does not have the fields of version {VERSION}: {error}") from error


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
    added = dataclasses.replace(
        spread,
        polls=spread.polls.plus(bad, total, remembered=REMEMBERED_POLLS),
        filling_polls=spread.filling_polls + 1,
        filling_bad=spread.filling_bad + bad,
        filling_total=spread.filling_total + total,
    )
    if added.filling_polls < BLOCK_POLLS:
        return added
    return dataclasses.replace(
        added,
        blocks=spread.blocks.plus(added.filling_bad, added.filling_total, remembered=REMEMBERED_POLLS / BLOCK_POLLS),
        filling_polls=0,
        filling_bad=0.0,
        filling_total=0.0,
    )


def design_effect(spread: Spread, *, poll_size: float = 0.0) -> float:
    """Return by what counts are to be divided: at least 1, at most `LARGEST`; 1 until spread has been seen.

    Args:
        spread: What is remembered of stable's polls.
        poll_size: Mean requests in a poll of what is to be judged. Where whole polls fail together, the effect
            grows with the poll as 1 + (n - 1) rho, so polls larger than stable's need a larger one. It is never
            made smaller for smaller polls: clients that send a few requests each give the same effect to all.

    Raises:
        ValueError: `poll_size` is negative, NaN or infinite.
    """
    checks.number(poll_size, "poll_size", low=0.0)
    largest = max(spread.polls.effect(poll_size), spread.blocks.effect(poll_size * BLOCK_POLLS))
    return min(LARGEST, largest)
