"""The e-process against a target: its value, its order, its guarantee and its speed of detection."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import integrate

from kedge.decide.statistics import alpha, ratio

BUDGETS = [1e-6, 1e-3, 0.01, 0.1, 0.5, 0.9]
budgets = st.floats(1e-6, 0.5)
totals = st.integers(1, 10**9)


def _exact(bad: float, total: float, budget: float) -> float:
    """The definition, integrated by forty-digit arithmetic."""
    with mpmath.workdps(40):
        b, good = mpmath.mpf(budget), mpmath.mpf(total) - bad

        def tail(first: float, second: float) -> mpmath.mpf:
            # The integral over (b, 1) divided by the integrand's power at b: DLMF 8.17.8.
            return mpmath.hyp2f1(1, mpmath.mpf(first) + second, second + 1, 1 - b) / second

        mixture = tail(ratio.SHAPE_BAD + bad, ratio.SHAPE_GOOD + good) / tail(ratio.SHAPE_BAD, ratio.SHAPE_GOOD)
        every = b**-bad if good == 0 else 0
        weight = ratio.TOTAL_FAILURE_WEIGHT
        return float(mpmath.log((1 - weight) * mixture + weight * every))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(
    ("bad", "total"),
    [(0, 1), (1, 1), (0, 50), (50, 50), (3, 50), (0.4, 3.7), (12, 1000), (60, 6000), (2_999, 6000)],
)
def test_closed_form_equals_the_definition(bad: float, total: float, budget: float) -> None:
    assert ratio.log_e_value(bad, total, budget) == pytest.approx(_exact(bad, total, budget), rel=1e-10, abs=1e-10)


def test_the_mixture_is_an_average_of_likelihood_ratios() -> None:
    bad, total, budget = 4, 60, 0.02

    def weighted(p: float) -> float:
        prior = p ** (ratio.SHAPE_BAD - 1) * (1 - p) ** (ratio.SHAPE_GOOD - 1)
        return float(prior * (p / budget) ** bad * ((1 - p) / (1 - budget)) ** (total - bad))

    mass, _ = integrate.quad(lambda p: p ** (ratio.SHAPE_BAD - 1) * (1 - p) ** (ratio.SHAPE_GOOD - 1), budget, 1)
    average, _ = integrate.quad(weighted, budget, 1, epsabs=1e-13)

    expected = math.log((1 - ratio.TOTAL_FAILURE_WEIGHT) * average / mass)
    assert ratio.log_e_value(bad, total, budget) == pytest.approx(expected, rel=1e-9)


def test_no_data_is_no_evidence() -> None:
    assert ratio.log_e_value(0, 0, 0.01) == 0.0


@given(total=totals, share=st.floats(0, 1), budget=budgets)
@example(total=10**9, share=0.0099, budget=0.01)
@example(total=10**9, share=1e-7, budget=1e-6)
@example(total=10**9, share=0.4999, budget=0.5)
def test_one_more_bad_event_is_more_evidence(total: int, share: float, budget: float) -> None:
    bad = min(total - 1, math.floor(share * total))

    fewer, more = ratio.log_e_value(bad, total, budget), ratio.log_e_value(bad + 1, total, budget)

    assert math.isfinite(fewer)
    assert fewer < more or fewer == pytest.approx(more, rel=1e-12)


@given(total=totals, share=st.floats(0, 1), budget=budgets)
def test_one_more_good_event_is_less_evidence(total: int, share: float, budget: float) -> None:
    bad = math.floor(share * total)

    before, after = ratio.log_e_value(bad, total, budget), ratio.log_e_value(bad, total + 1, budget)

    assert after < before or after == pytest.approx(before, rel=1e-12, abs=1e-9)


@given(total=totals, excess=st.floats(0, 1), pair=st.tuples(budgets, budgets))
def test_a_larger_budget_is_harder_to_exceed(total: int, excess: float, pair: tuple[float, float]) -> None:
    low, high = min(pair), max(pair)
    # Below the budget both are overwhelmingly negative, and their order means nothing.
    bad = total * (high + (1 - high) * excess)

    assert ratio.log_e_value(bad, total, low) >= ratio.log_e_value(bad, total, high) - 1e-9


@given(
    polls=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5000)), min_size=1, max_size=20),
    budget=budgets,
)
def test_how_traffic_is_split_over_polls_changes_nothing(polls: list[tuple[int, int]], budget: float) -> None:
    bad = sum(b for b, _ in polls)
    total = bad + sum(g for _, g in polls)
    running_bad = running_total = 0
    value = 0.0
    for b, g in polls:
        running_bad, running_total = running_bad + b, running_total + b + g
        value = ratio.log_e_value(running_bad, running_total, budget)

    assert value == ratio.log_e_value(bad, total, budget)


@given(bad=st.floats(0, 2.0**53), total=st.floats(0, 2.0**53), budget=st.floats(1e-12, 1 - 1e-12))
@example(bad=2.0**53, total=2.0**53, budget=1e-6)
@example(bad=0.0, total=2.0**53, budget=0.5)
@example(bad=2.0**53 - 1, total=2.0**53, budget=1e-6)
@example(bad=5e-324, total=5e-324, budget=0.5)
def test_every_possible_count_gives_a_finite_number(bad: float, total: float, budget: float) -> None:
    assume(bad <= total)

    assert math.isfinite(ratio.log_e_value(bad, total, budget))


@pytest.mark.parametrize("budget", [1e-6, 0.01, 0.5])
@pytest.mark.parametrize("total", [1.0, 40.0, 1e6])
def test_fractions_of_a_bad_event_keep_the_order(total: float, budget: float) -> None:
    """The integral degenerates where the shape passes 0, at a fifth of a bad event."""
    bad = [0.0, 0.1, 0.19, 0.195, 0.2, 0.2 + 1e-12, 0.205, 0.21, 0.22, 0.5, 1.0]
    values = [ratio.log_e_value(count, total, budget) for count in bad]

    assert all(fewer <= more + 1e-12 for fewer, more in itertools.pairwise(values))


@given(bad=st.integers(0, 200), good=st.integers(0, 200), budget=st.floats(0.001, 0.9))
def test_it_expects_no_gain_at_the_budget(bad: int, good: int, budget: float) -> None:
    """The supermartingale property, exactly: at p = budget one more request leaves the mean unchanged."""
    total = bad + good
    now = ratio.log_e_value(bad, total, budget)
    if_bad = ratio.log_e_value(bad + 1, total + 1, budget) - now
    if_good = ratio.log_e_value(bad, total + 1, budget) - now

    assert budget * math.exp(if_bad) + (1 - budget) * math.exp(if_good) == pytest.approx(1, rel=1e-7)


@pytest.mark.parametrize(("budget", "requests"), [(1e-3, 1), (0.01, 2), (0.1, 3)])
def test_a_candidate_that_fails_every_request_falls_at_once(budget: float, requests: int) -> None:
    limit = alpha.threshold(0.01, 1)

    assert ratio.log_e_value(requests, requests, budget) >= limit
    assert ratio.log_e_value(requests - 1, requests - 1, budget) < limit


def _first_rejections(fraction: float, budget: float, runs: int, bad_events: int, seed: int) -> np.ndarray:
    """Requests until rejection at alpha 1 %, looking at every request: shape (runs,), inf where none."""
    limit = alpha.threshold(0.01, 1)
    arrival = np.cumsum(np.random.default_rng(seed).geometric(fraction, (runs, bad_events)), axis=1)
    largest = np.zeros(bad_events)  # the most requests at which this many bad events still reject
    for bad in range(1, bad_events + 1):
        low, high = bad - 1, math.ceil(bad / budget)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if ratio.log_e_value(bad, middle, budget) >= limit else (low, middle - 1)
        largest[bad - 1] = low
    rejected = arrival <= largest
    first = arrival[np.arange(runs), rejected.argmax(axis=1)]
    return np.where(rejected.any(axis=1), first, np.inf)


@pytest.mark.parametrize("budget", [0.001, 0.05])
def test_looking_at_every_request_keeps_the_declared_rate(budget: float) -> None:
    first = _first_rejections(budget, budget, runs=4000, bad_events=300, seed=5)

    assert np.isfinite(first).mean() <= 0.01


@pytest.mark.parametrize(
    ("multiple", "within"),
    [pytest.param(2, 2.0, id="2x"), pytest.param(5, 1.5, id="5x"), pytest.param(20, 1.5, id="20x")],
)
@pytest.mark.parametrize("budget", [1e-6, 1e-3, 0.01])
def test_median_detection_is_near_the_information_bound(budget: float, multiple: float, within: float) -> None:
    p = multiple * budget
    divergence = p * math.log(p / budget) + (1 - p) * math.log((1 - p) / (1 - budget))

    first = _first_rejections(p, budget, runs=2000, bad_events=200, seed=6)

    assert np.median(first) <= within * math.log(100) / divergence
