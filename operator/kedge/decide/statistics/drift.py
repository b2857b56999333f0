"""How far two histograms over the same edges lie apart, and whether that is more than chance.

The popular "PSI above 0.1" alarms falsely about 83 times in 100 at n = m = 100 and ten bins, for under no
drift PSI is about (1/n + 1/m) chi-square with B - 1 degrees of freedom. [Yurdakul, "Statistical properties of
Population Stability Index", 2018.] Near its minimum the Jensen-Shannon divergence is PSI / 8, and where the
true distance is not 0 both are about noncentral chi-square. The Kolmogorov-Smirnov distance keeps within
a bound that holds at every sample size. [Dvoretzky, Kiefer, Wolfowitz; two samples: Wei, Dudley, 2012.]

So a distance is called drift only above what a true distance of the declared maximum would show by chance,
with the chance shared by all features and looks that are tested. Where the samples are too small for that
statement, there is none: `Finding.INSUFFICIENT_DATA`.

Two histograms from the same period, candidate's and stable's, make drift of the inputs that both see cancel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import special

from kedge.decide.statistics import checks

FEWEST_EXPECTED = 5.0
"""Rows that each bin must expect in both samples, for chi-square to describe them (Cochran, 1954). Sparser
bins are merged with their neighbours."""

SMALLEST_SHARE = 1e-12
"""The least chance that one test may be given: beyond it no approximation's tail is to be believed."""

Counts = list[float]
"""Plain lists: on a dozen bins they are several times as fast as arrays."""


class Measure(StrEnum):
    """How the distance between two histograms is measured."""

    PSI = "PSI"
    JENSEN_SHANNON = "JensenShannon"
    KOLMOGOROV_SMIRNOV = "KolmogorovSmirnov"


class Finding(StrEnum):
    """What a comparison says."""

    WITHIN = "Within"
    DRIFTED = "Drifted"
    INSUFFICIENT_DATA = "InsufficientData"


@dataclass(frozen=True)
class Comparison:
    """Two histograms compared.

    Attributes:
        measure: How.
        finding: What it says.
        distance: The measured distance over the bins left after merging; 0 where nothing could be measured.
        threshold: The distance above which it counts as drift; None with insufficient data.
        bins: Bins left after merging sparse ones.
        reference_rows: Rows of the reference.
        live_rows: Rows compared with it, not divided by the design effect.
    """

    measure: Measure
    finding: Finding
    distance: float
    threshold: float | None
    bins: int
    reference_rows: float
    live_rows: float


def psi(reference: Sequence[float], live: Sequence[float]) -> float:
    """Return the Population Stability Index, in nats; every bin counts half a row more than it has.

    That half keeps an empty bin from being infinitely far away.

    Raises:
        ValueError: The histograms are impossible or have different bins.
    """
    return _psi(*_histograms(reference, live))


def jensen_shannon(reference: Sequence[float], live: Sequence[float]) -> float:
    """Return the Jensen-Shannon divergence in nats, between 0 and log 2.

    Raises:
        ValueError: The histograms are impossible or have different bins.
    """
    return _jensen_shannon(*_histograms(reference, live))


def kolmogorov_smirnov(reference: Sequence[float], live: Sequence[float]) -> float:
    """Return the largest difference between the two cumulative shares at a bin's edge, between 0 and 1.

    Raises:
        ValueError: The histograms are impossible or have different bins.
    """
    return _kolmogorov_smirnov(*_histograms(reference, live))


def compare(
    reference: Sequence[float],
    live: Sequence[float],
    *,
    measure: Measure,
    maximum: float,
    alpha: float,
    tests: int = 1,
    look: int = 1,
    design_effect: float = 1.0,
) -> Comparison:
    """Compare live rows with a reference over the same bin edges.

    With all features given the same `tests` and each look the next number, the chance that any feature is ever
    called drifted while every true distance is at most `maximum` is about `alpha` at most.

    Args:
        reference: Rows in each bin of the reference, shape (n_bins,).
        live: Rows in each bin of what is compared, shape (n_bins,).
        measure: How to measure the distance.
        maximum: The largest tolerable true distance, at least 0.
        alpha: The chance of a false alarm over all tests and looks.
        tests: How many features share alpha.
        look: Which look at these features this is, from 1. Look k spends alpha / (k (k + 1)), which adds up
            to alpha; looks at samples that doubled since the last spend it best.
        design_effect: By how many the live rows are to be divided for rows that come in batches, at least 1.

    Raises:
        ValueError: An argument is impossible.
    """
    checks.number(maximum, "maximum", low=0.0)
    checks.open_fraction(alpha, "alpha")
    checks.whole(tests, "tests", low=1)
    checks.whole(look, "look", low=1)
    checks.number(design_effect, "design_effect", low=1.0)
    share = alpha / tests / (look * (look + 1.0))
    if share < SMALLEST_SHARE:
        raise ValueError(f"alpha over tests and looks must be at least {SMALLEST_SHARE}, got {share}")
    before, now = _histograms(reference, live)
    rows_before, rows_now = math.fsum(before), math.fsum(now)

    effective = rows_now / design_effect
    if measure is Measure.KOLMOGOROV_SMIRNOV:
        bins = len(before)
        distance = _kolmogorov_smirnov(before, now) if rows_before > 0 and rows_now > 0 else 0.0
        threshold = _bound(maximum, share, rows_before, effective)
        largest = 1.0
    else:
        before, now = _merge(before, now, effective)
        bins = len(before)
        by = _psi if measure is Measure.PSI else _jensen_shannon
        distance = by(before, now) if rows_before > 0 and rows_now > 0 else 0.0
        threshold = None
        if bins > 1 and min(rows_before, effective) >= FEWEST_EXPECTED * bins:
            unit = (1.0 / rows_before + 1.0 / effective) * (1.0 if measure is Measure.PSI else 0.125)
            margin = unit * _quantile(maximum / unit, bins - 1.0, share) - maximum
            threshold = maximum + margin * (_excess(before, now, effective) if measure is Measure.PSI else 1.0)
        elif bins == 1 and _hidden(min(rows_before, effective), measure) <= maximum:
            threshold = maximum
        largest = math.inf if measure is Measure.PSI else math.log(2.0)

    if threshold is None or threshold >= largest:
        finding, shown = Finding.INSUFFICIENT_DATA, None
    else:
        finding, shown = (Finding.DRIFTED if distance > threshold else Finding.WITHIN), threshold
    return Comparison(measure, finding, distance, shown, bins, rows_before, rows_now)


def _histograms(reference: Sequence[float], live: Sequence[float]) -> tuple[Counts, Counts]:
    before, now = [float(count) for count in reference], [float(count) for count in live]
    if len(before) != len(now) or not before:
        raise ValueError(f"histograms must have the same bins, got {len(before)} and {len(now)}")
    for name, counts in (("reference", before), ("live", now)):
        # Written so that a NaN is refused too.
        if not all(0.0 <= count <= checks.LARGEST_COUNT for count in counts):
            raise ValueError(f"{name} counts must be finite numbers between 0 and 2**53")
    return before, now


def _shares(counts: Counts) -> Counts:
    total = math.fsum(counts) + 0.5 * len(counts)
    return [(count + 0.5) / total for count in counts]


def _psi(before: Counts, now: Counts) -> float:
    return math.fsum((q - p) * math.log(q / p) for p, q in zip(_shares(before), _shares(now), strict=True))


def _jensen_shannon(before: Counts, now: Counts) -> float:
    total = 0.0
    for p, q in zip(_shares(before), _shares(now), strict=True):
        middle = 0.5 * (p + q)
        total += p * math.log(p / middle) + q * math.log(q / middle)
    return max(0.0, 0.5 * total)


def _kolmogorov_smirnov(before: Counts, now: Counts) -> float:
    rows_before, rows_now = math.fsum(before), math.fsum(now)
    if rows_before == 0.0 or rows_now == 0.0:
        raise ValueError("both histograms must have rows")
    below = zip(itertools.accumulate(before), itertools.accumulate(now), strict=True)
    return max(abs(p / rows_before - q / rows_now) for p, q in below)


def _merge(before: Counts, now: Counts, effective: float) -> tuple[Counts, Counts]:
    """Merge neighbours until each bin expects enough rows in the smaller sample.

    What a bin expects is read from both samples together: under no drift these sums do not tell which sample
    a row came from, so choosing bins by them is fair, and a bin that only live rows fill stays visible.
    """
    rows_before, rows_now = math.fsum(before), math.fsum(now)
    weight = effective / rows_now if rows_now > 0.0 else 0.0
    smaller = min(rows_before, effective)
    needed = FEWEST_EXPECTED * (rows_before + effective) / smaller if smaller > 0.0 else math.inf
    merged_before, merged_now, gathered = [0.0], [0.0], 0.0
    for p, q in zip(before, now, strict=True):
        if gathered >= needed:
            merged_before.append(0.0)
            merged_now.append(0.0)
            gathered = 0.0
        merged_before[-1] += p
        merged_now[-1] += q
        gathered += p + q * weight
    if gathered < needed and len(merged_before) > 1:
        p, q = merged_before.pop(), merged_now.pop()
        merged_before[-1] += p
        merged_now[-1] += q
    return merged_before, merged_now


def _quantile(noncentrality: float, freedom: float, share: float) -> float:
    """Return what a noncentral chi-square exceeds with chance `share`."""
    if noncentrality <= 1000.0:
        return float(special.chndtrix(1.0 - share, freedom, noncentrality))
    # Cornish and Fisher's first correction for skewness: four digits here, where the inverse is slow.
    z = -float(special.ndtri(share))
    variance = 2.0 * (freedom + 2.0 * noncentrality)
    skewness = 8.0 * (freedom + 3.0 * noncentrality) / math.pow(variance, 1.5)
    return freedom + noncentrality + math.sqrt(variance) * (z + (z * z - 1.0) * skewness / 6.0)


def _excess(before: Counts, now: Counts, effective: float) -> float:
    """Return by how much PSI scatters more than its chi-square says: at least 1.

    The chi-square holds near no drift. A bin that lost most of its rows scatters more, as the logarithm is
    steep there; the delta method gives by how much. Jensen-Shannon is bounded and scatters less instead.
    """
    rows = math.fsum(before)
    distance = live_mean = live_square = reference_mean = reference_square = 0.0
    for p, q in zip(_shares(before), _shares(now), strict=True):
        log_ratio = math.log(q / p)
        # How PSI changes with this bin's share of the live and of the reference rows.
        by_live, by_reference = log_ratio + 1.0 - p / q, 1.0 - log_ratio - q / p
        distance += (q - p) * log_ratio
        live_mean += q * by_live
        live_square += q * by_live * by_live
        reference_mean += p * by_reference
        reference_square += p * by_reference * by_reference
    variance = (live_square - live_mean**2) / effective + (reference_square - reference_mean**2) / rows
    near_none = 4.0 * distance * (1.0 / rows + 1.0 / effective)
    return math.sqrt(max(1.0, variance / near_none)) if near_none > 0.0 else 1.0


def _hidden(rows: float, measure: Measure) -> float:
    """Return the largest distance, about, that can hide where all but a few rows are in one bin.

    On each side of the bin that gathered enough, less than `FEWEST_EXPECTED` rows of the smaller sample are left:
    a share that may have grown from half a row to all of these.
    """
    if rows == 0.0:
        return math.inf
    most = 2.0 * FEWEST_EXPECTED
    return most / rows * math.log(2.0 * most) * (1.0 if measure is Measure.PSI else 0.125)


def _bound(maximum: float, share: float, reference: float, live: float) -> float | None:
    """Return the Kolmogorov-Smirnov distance that a true one of `maximum` exceeds with chance `share`."""
    if reference == 0.0 or live == 0.0:
        return None
    # P(D > x) <= e exp(-2 x^2 n m / (n + m)) for every n and m; the constant is 2 only for large ones.
    return maximum + math.sqrt(0.5 * (1.0 - math.log(share)) * (1.0 / reference + 1.0 / live))
