"""The interval that people see holds the truth at every look at once."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats

from kedge.decide.statistics import beta, confidence
from kedge.decide.statistics.confidence import Interval


def test_without_data_anything_is_possible() -> None:
    assert confidence.confidence_sequence(0, 0, 0.05) == Interval(0.0, 1.0)


@pytest.mark.parametrize(("bad", "total"), [(1, 1), (3, 40), (40, 400), (0.7, 9.1), (9_990, 10_000)])
def test_ends_are_where_the_mixture_reaches_one_over_alpha(bad: float, total: float) -> None:
    interval = confidence.confidence_sequence(bad, total, 0.05)

    for end in (interval.low, interval.high):
        if 0 < end < 1:
            with mpmath.workdps(40):
                likelihood = mpmath.mpf(end) ** bad * (1 - mpmath.mpf(end)) ** (total - bad)
                mixture = mpmath.beta(bad + 0.5, total - bad + 0.5) / mpmath.pi
            assert float(mixture / likelihood) == pytest.approx(20, rel=1e-6)


@given(total=st.floats(1, 1e9), share=st.floats(1e-9, 1), alpha=st.floats(1e-6, 0.5))
@example(total=20_000.0, share=5e-9, alpha=1e-6)
@example(total=20_000.0, share=1 - 5e-9, alpha=1e-6)
def test_ends_are_exact_for_fractions_of_events_too(total: float, share: float, alpha: float) -> None:
    bad = share * total
    interval = confidence.confidence_sequence(bad, total, alpha)

    for end in (interval.low, interval.high):
        # Closer to 1 a fraction has no digits left.
        if 0 < end < 1 - 1e-9:
            power = 0.5 * (math.log(end) + math.log1p(-end))
            mixture = beta.log_beta_over_power(bad + 0.5, total - bad + 0.5, end) + power - math.log(math.pi)
            assert mixture == pytest.approx(-math.log(alpha), abs=1e-5)


@given(total=st.integers(1, 10**9), share=st.floats(0, 1), alpha=st.floats(1e-6, 0.5))
def test_the_estimate_lies_inside(total: int, share: float, alpha: float) -> None:
    bad = math.floor(share * total)

    interval = confidence.confidence_sequence(bad, total, alpha)

    assert 0 <= interval.low <= bad / total <= interval.high <= 1
    assert (interval.low == 0) or bad > 0
    assert (interval.high == 1) or bad < total


@given(total=st.integers(1, 10**7), share=st.floats(0, 1))
def test_more_certainty_needs_a_wider_interval(total: int, share: float) -> None:
    bad = math.floor(share * total)

    sure, surer = (confidence.confidence_sequence(bad, total, alpha) for alpha in (0.1, 0.001))

    assert surer.low <= sure.low
    assert sure.high <= surer.high


@given(total=st.integers(2, 10**7), share=st.floats(0, 1))
def test_ends_move_up_with_bad_events(total: int, share: float) -> None:
    bad = min(total - 1, math.floor(share * total))

    fewer, more = (confidence.confidence_sequence(count, total, 0.05) for count in (bad, bad + 1))

    assert fewer.low <= more.low
    assert fewer.high <= more.high


@given(total=st.integers(1, 5000), share=st.floats(0, 1))
def test_it_is_wider_than_the_exact_interval_of_a_single_look(total: int, share: float) -> None:
    bad = math.floor(share * total)

    ours = confidence.confidence_sequence(bad, total, 0.05)
    once = stats.binomtest(bad, total).proportion_ci(0.95, method="wilson")

    assert ours.high - ours.low >= 0.9 * (once.high - once.low)


@given(bad=st.floats(0, 2.0**53), total=st.floats(0, 2.0**53))
@example(bad=2.0**53, total=2.0**53)
@example(bad=1.0, total=2.0**53)
@example(bad=5e-324, total=5e-324)
@example(bad=5e-324, total=1.0)
def test_every_possible_count_gives_an_interval(bad: float, total: float) -> None:
    assume(bad <= total)

    interval = confidence.confidence_sequence(bad, total, 0.05)

    assert 0 <= interval.low <= interval.high <= 1


def test_a_thousand_million_requests_are_resolved() -> None:
    interval = confidence.confidence_sequence(1e6, 1e9, 0.05)

    # One standard error is 1e-6; watching for ever costs a factor of about five.
    assert 4e-6 < interval.high - 1e-3 < 6e-6
    assert 4e-6 < 1e-3 - interval.low < 6e-6


def test_intersections_narrow_and_disagreement_is_visible() -> None:
    assert Interval(0.1, 0.4).intersect(Interval(0.2, 0.6)) == Interval(0.2, 0.4)
    assert Interval(0.1, 0.2).intersect(Interval(0.3, 0.4)) is None


@pytest.mark.parametrize("truth", [0.002, 0.2])
def test_the_truth_is_inside_at_every_look(truth: float) -> None:
    runs, looks = 150, np.unique(np.geomspace(1, 3000, 25).astype(int))
    outcomes = np.random.default_rng(11).random((runs, 3000)) < truth
    bad = outcomes.cumsum(axis=1)[:, looks - 1]

    ever_outside = 0
    for run in range(runs):
        intervals = [confidence.confidence_sequence(int(b), int(n), 0.1) for b, n in zip(bad[run], looks, strict=True)]
        ever_outside += any(not i.low <= truth <= i.high for i in intervals)

    assert ever_outside / runs <= 0.1
