"""The one place where arguments of the statistics are found impossible.

Counts may be fractions, since a design effect divides them. They may not be NaN, infinite or negative,
and there cannot be more bad events than events: such numbers mean that observation is broken, and a test
that swallowed them would turn ignorance into a verdict.
"""

from __future__ import annotations

import math

LARGEST_COUNT = 2.0**53
"""Above this, floating point no longer tells a count from its successor."""


def counts(bad: float, total: float, *, name: str = "") -> None:
    """Accept `0 <= bad <= total <= 2**53`.

    Args:
        bad: Bad events.
        total: All events.
        name: Which arm the counts belong to, for the message.

    Raises:
        ValueError: A count is NaN, infinite, negative or above 2**53, or bad exceeds total.
    """
    prefix = f"{name} " if name else ""
    for label, value in (("bad", bad), ("total", total)):
        if not math.isfinite(value):
            raise ValueError(f"{prefix}{label} must be a finite number, got {value}")
        if value < 0:
            raise ValueError(f"{prefix}{label} must not be negative, got {value}")
        if value > LARGEST_COUNT:
            raise ValueError(f"{prefix}{label} must be at most 2**53, got {value}")
    if bad > total:
        raise ValueError(f"{prefix}bad ({bad}) must not exceed {prefix}total ({total})")


def open_fraction(value: float, name: str) -> None:
    """Accept `0 < value < 1`.

    Raises:
        ValueError: The value is NaN or outside the open interval.
    """
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")


def number(value: float, name: str, *, low: float = -math.inf, high: float = math.inf) -> None:
    """Accept a finite number in `[low, high]`.

    Raises:
        ValueError: The value is NaN, infinite or outside the interval.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie between {low} and {high}, got {value}")


def whole(value: int, name: str, *, low: int) -> None:
    """Accept an integer of at least `low`.

    Raises:
        ValueError: The value is no integer, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be an integer, got {value!r}")  # noqa: TRY004 - one error type for callers
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
