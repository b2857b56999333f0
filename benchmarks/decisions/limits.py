"""Confidence limits of what was simulated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special, stats


def clopper_pearson(events: int, runs: int) -> tuple[float, float]:
    """The exact two-sided 95 % interval of a share."""
    low = float(special.betaincinv(events, runs - events + 1, 0.025)) if events else 0.0
    high = float(special.betaincinv(events + 1, runs - events, 0.975)) if events < runs else 1.0
    return low, high


def median(values: npt.ArrayLike) -> tuple[float, float, float]:
    """The median with its exact 95 % interval from order statistics; infinities are values like others."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    low = int(stats.binom.ppf(0.025, n, 0.5))
    return float(ordered[(n - 1) // 2]), float(ordered[max(0, low - 1)]), float(ordered[min(n - 1, n - low)])


def mean(values: npt.ArrayLike) -> tuple[float, float, float]:
    """The mean with its normal 95 % interval."""
    sample = np.asarray(values, dtype=np.float64)
    half = 1.96 * float(sample.std(ddof=1)) / len(sample) ** 0.5
    centre = float(sample.mean())
    return centre, centre - half, centre + half
