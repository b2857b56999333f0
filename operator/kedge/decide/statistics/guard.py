"""The watch after promotion: no end is known in advance, so what is declared is how rarely it cries wolf.

For an alternative p above the budget b, every poll multiplies a likelihood ratio against b. The
Shiryaev-Roberts detector adds up the products that started at each past poll; its value minus the number of
polls is a supermartingale while the fraction stays within its budget, so the mean number of polls until it
first reaches a level is at least that level. So is it for an average over alternatives. [Shin, Ramdas,
Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2023.] Unlike a test from
the beginning, it forgets good times: a change after a week is found as soon as one after a minute.

The recursion is `M <- L * (M + 1)`; kept is log(1 + M), which is 0 at first and always finite.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kedge.decide.statistics import checks

VERSION = 1
"""Of the state's meaning. A state of another version must not be continued."""

RUNGS = (0.03, 0.06, 0.1, 0.15, 0.21, 0.28, 0.37, 0.48, 0.6, 0.75, 0.9, 0.98)
"""Alternatives as shares of the way from the budget to 1 on the log scale, closer near the budget."""


@dataclass(frozen=True)
class GuardState:
    """What a guard remembers: finite numbers only, so that JSON carries it exactly.

    Attributes:
        version: Of the fields' meaning.
        log_detectors: log(1 + M) of each rung in `RUNGS`.
        polls: Polls with requests since the watch began.
    """

    version: int = VERSION
    log_detectors: tuple[float, ...] = (0.0,) * len(RUNGS)
    polls: int = 0

    @property
    def log_e(self) -> float:
        """The log of 1 plus the average detector: 0 at first, an alarm at `threshold` or above."""
        largest = max(self.log_detectors)
        mean = math.fsum(math.exp(value - largest) for value in self.log_detectors) / len(self.log_detectors)
        return largest + math.log(mean)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> GuardState:
        """Return the state whose `dataclasses.asdict`, through JSON or not, gave `fields`.

        Raises:
            ValueError: The fields are of another version, incomplete or unknown.
        """
        if fields.get("version") != VERSION:
            raise ValueError(f"guard state must be of version {VERSION}, got {fields.get('version')!r}")
        try:
            state = cls(**{**fields, "log_detectors": tuple(fields["log_detectors"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"guard state does not have the fields of version {VERSION}: {error}") from error
        if len(state.log_detectors) != len(RUNGS):
            raise ValueError(f"guard state must have {len(RUNGS)} rungs, got {len(state.log_detectors)}")
        return state


@functools.lru_cache(maxsize=256)
def gains(budget: float) -> tuple[tuple[float, float], ...]:
    """Return, for each rung, the log likelihood ratios of a bad and of a good event against the budget."""
    log_budget, log_good = math.log(budget), math.log1p(-budget)
    alternatives = [log_budget * (1.0 - rung) for rung in RUNGS]
    return tuple((log_p - log_budget, math.log(-math.expm1(log_p)) - log_good) for log_p in alternatives)


def update(state: GuardState, *, bad: float, total: float, budget: float) -> GuardState:
    """Return the state after one poll; a poll without requests changes nothing.

    Args:
        state: What is remembered from past polls.
        bad: Bad events in this poll; a fraction when a design effect divides the counts.
        total: Requests in this poll.
        budget: The largest bad fraction that the objective allows; the same at every poll.

    Raises:
        ValueError: Counts or budget are impossible (see `checks`), or the state is of another version.
    """
    checks.counts(bad, total)
    checks.open_fraction(budget, "budget")
    if state.version != VERSION:
        raise ValueError(f"guard state must be of version {VERSION}, got {state.version!r}")
    if total == 0.0:
        return state
    good = total - bad
    return GuardState(
        log_detectors=tuple(
            _log_one_plus_exp(value + bad * if_bad + good * if_good)
            for value, (if_bad, if_good) in zip(state.log_detectors, gains(budget), strict=True)
        ),
        polls=state.polls + 1,
    )


def threshold(mean_polls: float, objectives: int) -> float:
    """Return the `log_e` at which one of `objectives` guards raises an alarm.

    Together they raise a false one at most every `mean_polls` polls on average: their sum is a detector too.

    Args:
        mean_polls: The declared average number of polls with requests between false alarms, at least 1.
        objectives: How many guards may raise an alarm.

    Raises:
        ValueError: An argument is out of range.
    """
    checks.number(mean_polls, "mean_polls", low=1.0)
    checks.whole(objectives, "objectives", low=1)
    return math.log1p(mean_polls * objectives)


def _log_one_plus_exp(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x > 0.0 else math.log1p(math.exp(x))
