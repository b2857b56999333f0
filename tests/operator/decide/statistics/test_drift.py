"""Distances between histograms: the usual numbers, and alarms only beyond chance."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from kedge.decide.statistics import drift
from kedge.decide.statistics.drift import Finding, Measure

FLAT = [0.1] * 10
SKEWED = [0.5, 0.25, 0.12, 0.06, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002]
histograms = st.integers(2, 13).flatmap(
    lambda bins: st.tuples(*(st.lists(st.integers(0, 10**6), min_size=bins, max_size=bins) for _ in range(2)))
)


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, now = rng.integers(0, 500, (2, 12))
    p, q = (before + 0.5) / (before + 0.5).sum(), (now + 0.5) / (now + 0.5).sum()
    sample_before, sample_now = (np.repeat(np.arange(12), counts) for counts in (before, now))

    assert drift.psi(before, now) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), rel=1e-12)
    assert drift.jensen_shannon(before, now) == pytest.approx(distance.jensenshannon(p, q) ** 2, rel=1e-9)
    assert drift.kolmogorov_smirnov(before, now) == pytest.approx(
        stats.ks_2samp(sample_before, sample_now, method="asymp").statistic, rel=1e-12
    )


@given(pair=histograms)
def test_distances_are_symmetric_bounded_and_zero_between_equals(pair: tuple[list[int], list[int]]) -> None:
    before, now = pair
    assume(sum(before) and sum(now))

    assert drift.psi(before, now) == pytest.approx(drift.psi(now, before), rel=1e-9, abs=1e-12)
    assert 0 <= drift.jensen_shannon(before, now) <= math.log(2)
    assert 0 <= drift.kolmogorov_smirnov(before, now) <= 1
    assert drift.psi(before, before) == drift.kolmogorov_smirnov(before, before) == 0


@given(
    pair=histograms,
    measure=st.sampled_from(Measure),
    maximum=st.floats(0, 1),
    tests=st.integers(1, 50),
    effect=st.floats(1, 50),
)
# One bin is left, and what it can hide is less than the maximum.
@example(pair=([0, 30], [0, 30]), measure=Measure.PSI, maximum=1.0, tests=1, effect=1.0)
def test_every_pair_of_histograms_gets_a_finding(
    pair: tuple[list[int], list[int]], measure: Measure, maximum: float, tests: int, effect: float
) -> None:
    found = drift.compare(*pair, measure=measure, maximum=maximum, alpha=0.01, tests=tests, design_effect=effect)

    assert math.isfinite(found.distance)
    assert (found.threshold is None) == (found.finding is Finding.INSUFFICIENT_DATA)
    if found.threshold is not None:
        if found.bins == 1:
            assert (found.threshold, found.distance) == (maximum, 0)
        else:
            assert found.threshold > maximum
        assert (found.distance > found.threshold) == (found.finding is Finding.DRIFTED)


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize("counts", [2**53, 1, 0])
def test_extreme_counts_get_a_finding(measure: Measure, counts: int) -> None:
    for pair in ([counts] * 3, [0, 0, counts]), ([0, 0, 0], [counts] * 3), ([counts, 0, 0], [0, 0, counts]):
        found = drift.compare(*pair, measure=measure, maximum=0.1, alpha=0.01)

        assert math.isfinite(found.distance)


@pytest.mark.parametrize("measure", Measure)
def test_the_popular_rule_needs_more_rows_and_says_so(measure: Measure) -> None:
    before, now = [10] * 10, [16, 4, 14, 6, 12, 8, 10, 10, 13, 7]
    assert drift.psi(before, now) > 0.1

    few = drift.compare(before, now, measure=measure, maximum=0.0, alpha=0.01)
    many = drift.compare([1000 * b for b in before], [1000 * n for n in now], measure=measure, maximum=0.0, alpha=0.01)

    assert few.finding is Finding.WITHIN
    assert many.finding is Finding.DRIFTED


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize(("before", "now"), [([0] * 10, [50] * 10), ([50] * 10, [0] * 10), ([0] * 10, [0] * 10)])
def test_no_rows_are_insufficient(measure: Measure, before: list[int], now: list[int]) -> None:
    found = drift.compare(before, now, measure=measure, maximum=0.2, alpha=0.01)

    assert found.finding is Finding.INSUFFICIENT_DATA
    assert found.threshold is None


@pytest.mark.parametrize("measure", [Measure.PSI, Measure.JENSEN_SHANNON])
def test_too_few_rows_for_two_bins_are_insufficient(measure: Measure) -> None:
    found = drift.compare([1000] * 10, [0] * 9 + [9], measure=measure, maximum=0.0, alpha=0.01)

    assert found.finding is Finding.INSUFFICIENT_DATA


@pytest.mark.parametrize("measure", [Measure.JENSEN_SHANNON, Measure.KOLMOGOROV_SMIRNOV])
def test_a_threshold_that_nothing_can_exceed_is_insufficient(measure: Measure) -> None:
    found = drift.compare([100, 100], [1, 11], measure=measure, maximum=0.67, alpha=0.01)

    assert found.finding is Finding.INSUFFICIENT_DATA


def test_sparse_bins_are_merged_with_their_neighbours() -> None:
    before, now = [500, 3, 2, 495, 1], [40, 0, 0, 60, 0]

    found = drift.compare(before, now, measure=Measure.PSI, maximum=0.0, alpha=0.01)

    assert found.bins == 2
    assert found.distance == pytest.approx(drift.psi([500, 501], [40, 60]))


def test_rows_in_a_bin_that_the_reference_never_saw_are_drift() -> None:
    found = drift.compare([500, 500, 0], [250, 250, 500], measure=Measure.PSI, maximum=0.2, alpha=0.01)

    assert found.finding is Finding.DRIFTED


@pytest.mark.parametrize("measure", Measure)
def test_thresholds_rise_with_tests_looks_and_batches(measure: Measure) -> None:
    def threshold(**changes: float) -> float:
        found = drift.compare([1000] * 10, [1000] * 10, measure=measure, maximum=0.05, alpha=0.01, **changes)  # type: ignore[arg-type]
        assert found.threshold is not None
        return found.threshold

    plain = threshold()

    assert plain < threshold(tests=20) < threshold(tests=20, look=9)
    assert plain < threshold(design_effect=3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maximum": -0.1}, "maximum"),
        ({"maximum": math.nan}, "maximum"),
        ({"alpha": 0.0}, "alpha"),
        ({"tests": 0}, "tests"),
        ({"look": 0}, "look"),
        ({"design_effect": 0.5}, "design_effect"),
        ({"tests": 10**12}, "alpha over tests"),
        ({"reference": [1.0]}, "same bins"),
        ({"reference": [], "live": []}, "same bins"),
        ({"live": [1.0, math.nan]}, "live counts"),
        ({"reference": [1.0, -1.0]}, "reference counts"),
        ({"live": [1.0, math.inf]}, "live counts"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    arguments = {"reference": [5, 5], "live": [5, 5], "measure": Measure.PSI, "maximum": 0.1, "alpha": 0.01}

    with pytest.raises(ValueError, match=message):
        drift.compare(**(arguments | changes))  # type: ignore[arg-type]


def test_kolmogorov_smirnov_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must have rows"):
        drift.kolmogorov_smirnov([0, 0], [1, 1])


@pytest.mark.parametrize("nc", [0.0, 1.0, 50.0, 1000.0, 1001.0, 20_000.0])
@pytest.mark.parametrize("share", [1e-2, 1e-6])
def test_quantiles_are_those_of_scipy(nc: float, share: float) -> None:
    expected = stats.ncx2.isf(share, 9, nc) if nc else stats.chi2.isf(share, 9)

    assert drift._quantile(nc, 9, share) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize("shares", [FLAT, SKEWED], ids=["flat", "skewed"])
@pytest.mark.parametrize(("reference", "live"), [(100, 100), (10_000, 100), (2000, 2000)])
def test_no_drift_alarms_at_the_stated_rate(measure: Measure, shares: list[float], reference: int, live: int) -> None:
    rng, runs = np.random.default_rng(9), 1500
    pairs = zip(rng.multinomial(reference, shares, runs), rng.multinomial(live, shares, runs), strict=True)

    drifted = sum(
        drift.compare(b.tolist(), n.tolist(), measure=measure, maximum=0, alpha=0.04).finding is Finding.DRIFTED
        for b, n in pairs
    )

    # The first look spends half of alpha; three standard errors of 1500 runs are allowed on top.
    assert drifted / runs <= 0.02 + 3 * math.sqrt(0.02 / runs)


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize("live", [200, 5000])
def test_drift_at_the_maximum_is_tolerated_and_beyond_it_found(measure: Measure, live: int) -> None:
    rng, runs = np.random.default_rng(10), 800
    now = [0.17, 0.14, 0.12, 0.1, 0.1, 0.1, 0.1, 0.08, 0.06, 0.03]
    many_before, many_now = ([1e12 * share for share in shares] for shares in (FLAT, now))
    exact = {
        Measure.PSI: drift.psi(many_before, many_now),
        Measure.JENSEN_SHANNON: drift.jensen_shannon(many_before, many_now),
        Measure.KOLMOGOROV_SMIRNOV: drift.kolmogorov_smirnov(many_before, many_now),
    }[measure]
    reference = [100_000 * share for share in FLAT]
    lives = rng.multinomial(live, now, runs).tolist()

    def rate(maximum: float) -> float:
        findings = [drift.compare(reference, n, measure=measure, maximum=maximum, alpha=0.04).finding for n in lives]
        return sum(finding is Finding.DRIFTED for finding in findings) / runs

    assert rate(exact) <= 0.02 + 3 * math.sqrt(0.02 / runs)
    if live == 5000:
        assert rate(exact / 2) >= 0.95
