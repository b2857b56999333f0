"""Impossible numbers are refused by every test of the package, with a message that names them."""

import math
from collections.abc import Callable

import pytest

from kedge.decide.statistics import alpha, confidence, power, ratio, two_sample

IMPOSSIBLE = [
    pytest.param(math.nan, 10, "bad must be a finite number", id="bad is NaN"),
    pytest.param(1, math.nan, "total must be a finite number", id="total is NaN"),
    pytest.param(1, math.inf, "total must be a finite number", id="total is infinite"),
    pytest.param(-math.inf, 10, "bad must be a finite number", id="bad is minus infinity"),
    pytest.param(-1, 10, "bad must not be negative", id="bad is negative"),
    pytest.param(-2, -1, "must not be negative", id="both are negative"),
    pytest.param(11, 10, r"bad \(11\) must not exceed", id="more bad events than events"),
    pytest.param(0, 2.0**54, "at most 2", id="beyond what floating point can count"),
]


def _block(bad: float, total: float, arm: str) -> two_sample.TwoSampleState:
    arms = {"candidate": (0.0, 1.0), "stable": (0.0, 1.0), arm: (bad, total)}
    return two_sample.update(
        two_sample.TwoSampleState(),
        candidate_bad=arms["candidate"][0],
        candidate_total=arms["candidate"][1],
        stable_bad=arms["stable"][0],
        stable_total=arms["stable"][1],
        tolerance=0.0,
    )


TAKES_COUNTS = {
    "ratio": lambda bad, total: ratio.log_e_value(bad, total, 0.01),
    "confidence": lambda bad, total: confidence.confidence_sequence(bad, total, 0.05),
    "candidate": lambda bad, total: _block(bad, total, "candidate"),
    "stable": lambda bad, total: _block(bad, total, "stable"),
}


@pytest.mark.parametrize("take", TAKES_COUNTS.values(), ids=TAKES_COUNTS.keys())
@pytest.mark.parametrize(("bad", "total", "message"), IMPOSSIBLE)
def test_impossible_counts_are_refused(
    take: Callable[[float, float], object], bad: float, total: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        take(bad, total)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "take"),
    [
        ("budget", lambda value: ratio.log_e_value(1, 10, value)),
        ("alpha", lambda value: confidence.confidence_sequence(1, 10, value)),
        ("budget", lambda value: power.detectable_fraction(10, value, 0.01)),
        ("alpha", lambda value: power.detectable_fraction(10, 0.01, value)),
        ("power", lambda value: power.detectable_fraction(10, 0.01, 0.01, value)),
        ("alpha", lambda value: alpha.threshold(value, 1)),
        ("alpha", lambda value: alpha.share(value, 1)),
    ],
)
def test_fractions_lie_strictly_between_zero_and_one(name: str, take: Callable[[float], object], value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must lie strictly between 0 and 1"):
        take(value)


@pytest.mark.parametrize("tolerance", [-0.01, 1.0, math.nan, math.inf])
def test_a_tolerance_is_a_fraction_below_one(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance must lie in"):
        two_sample.update(
            two_sample.TwoSampleState(),
            candidate_bad=0,
            candidate_total=1,
            stable_bad=0,
            stable_total=1,
            tolerance=tolerance,
        )


@pytest.mark.parametrize("objectives", [0, -1, 1.5, True])
def test_objectives_are_counted_in_whole_numbers(objectives: int) -> None:
    with pytest.raises(ValueError, match="objectives must be"):
        alpha.threshold(0.01, objectives)
    with pytest.raises(ValueError, match="objectives must be"):
        alpha.share(0.01, objectives)
