"""What a passed test would have caught."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kedge.decide.statistics import power, ratio

budgets = st.floats(1e-6, 0.5)


@given(total=st.integers(1, 10**9), budget=budgets, alpha=st.floats(1e-4, 0.2))
def test_the_boundary_is_the_fewest_bad_events_that_reject(total: int, budget: float, alpha: float) -> None:
    boundary = power.rejection_boundary(total, budget, alpha)

    limit = -math.log(alpha)
    if boundary is None:
        assert ratio.log_e_value(total, total, budget) < limit
    else:
        assert ratio.log_e_value(boundary, total, budget) >= limit
        assert ratio.log_e_value(boundary - 1, total, budget) < limit


@pytest.mark.parametrize("total", [3, 50, 1000, 40_000])
@pytest.mark.parametrize("budget", [0.001, 0.02])
def test_the_detectable_fraction_is_revealed_with_the_stated_power(total: int, budget: float) -> None:
    fraction = power.detectable_fraction(total, budget, 0.01)

    assert fraction is not None
    assert fraction > budget
    boundary = power.rejection_boundary(total, budget, 0.01)
    assert boundary is not None
    assert stats.binom.sf(boundary - 1, total, fraction) == pytest.approx(0.95, rel=1e-6)


@pytest.mark.parametrize("total", [0, 0.4, 1])
def test_too_few_requests_reveal_nothing(total: float) -> None:
    assert power.detectable_fraction(total, 0.05, 0.01) is None


@given(total=st.integers(20, 10**7), budget=st.floats(1e-4, 0.2))
def test_twice_the_requests_reveal_less_bad_candidates(total: int, budget: float) -> None:
    once, twice = (power.detectable_fraction(n, budget, 0.01) for n in (total, 2 * total))

    assert twice is not None
    assert once is None or twice < once


def test_counts_divided_by_a_design_effect_are_taken() -> None:
    lower, between, upper = (power.detectable_fraction(n, 0.01, 0.01) for n in (1000, 1000.5, 1001))

    assert lower is not None
    assert between is not None
    assert upper is not None
    assert min(lower, upper) <= between <= max(lower, upper)
