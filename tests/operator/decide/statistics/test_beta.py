"""The log-space Beta integrals agree with forty-digit arithmetic wherever it can follow."""

import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kedge.decide.statistics import beta


def _exact_log_tail(a: float, b: float, fraction: float) -> float:
    """DLMF 8.17.8 for the tail, whose terms are all positive: mpmath's own incomplete beta cancels here."""
    with mpmath.workdps(40):
        series = mpmath.hyp2f1(1, mpmath.mpf(a) + mpmath.mpf(b), mpmath.mpf(b) + 1, 1 - mpmath.mpf(fraction))
        return float(mpmath.log(series / mpmath.mpf(b)))


@pytest.mark.parametrize("fraction", [1e-6, 1e-3, 0.01, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("total", [1, 7.5, 40, 900, 6000])
@pytest.mark.parametrize("share", [0.0, 1e-3, 0.1, 1.0])
def test_tail_matches_forty_digits(fraction: float, total: float, share: float) -> None:
    a, b = 0.05 + share * total, 1 + (1 - share) * total

    assert beta.log_tail_over_power(a, b, fraction) == pytest.approx(
        _exact_log_tail(a, b, fraction), rel=1e-11, abs=1e-11
    )


@pytest.mark.parametrize("fraction", [1e-6, 1e-3, 0.01, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("b", [1.0, 1.5, 30.0, 150.0, 3000.0])
@pytest.mark.parametrize("a", [-0.9, -0.2, -0.01])
def test_tail_of_a_negative_shape_matches_forty_digits(fraction: float, b: float, a: float) -> None:
    assert beta.log_tail_over_power(a, b, fraction) == pytest.approx(
        _exact_log_tail(a, b, fraction), rel=1e-10, abs=1e-10
    )


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1e-3, 2.0), (15.9, 16.1), (3.0, 1e9), (4e8, 6e8), (1e15, 9e15)])
@pytest.mark.parametrize("fraction", [1e-6, 0.25, 0.5])
def test_complete_integral_matches_forty_digits(a: float, b: float, fraction: float) -> None:
    with mpmath.workdps(50):
        exact = mpmath.log(mpmath.beta(a, b)) - a * mpmath.log(fraction)
        expected = float(exact - b * mpmath.log(1 - mpmath.mpf(fraction)))

    assert beta.log_beta_over_power(a, b, fraction) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(
    total=st.floats(1, 1e9),
    share=st.floats(0, 1),
    fraction=st.floats(1e-6, 0.5),
)
def test_deviance_is_a_divergence(total: float, share: float, fraction: float) -> None:
    a, b = share * total, (1 - share) * total

    assert beta.binomial_deviance(a, b, fraction) >= 0
    assert beta.binomial_deviance(fraction * total, (1 - fraction) * total, fraction) == pytest.approx(0, abs=1e-6)


def test_deviance_keeps_its_digits_where_the_plain_form_has_none() -> None:
    n, p = 1e9, 0.01
    a = n * p + 1.0
    with mpmath.workdps(40):
        exact = a * mpmath.log(a / (mpmath.mpf(n) * p)) + (n - a) * mpmath.log((n - a) / (n * (1 - mpmath.mpf(p))))

    assert beta.binomial_deviance(a, n - a, p) == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize(("bad", "total"), [(0, 30), (3, 30), (30, 30), (900, 12_000)])
def test_deviance_and_integral_give_scipy_binomial_probabilities(bad: int, total: int) -> None:
    # pmf(k; n, p) = p**k q**(n-k) / ((n + 1) B(k + 1, n - k + 1))
    p = 0.07
    log_pmf = (
        -beta.log_beta_over_power(bad + 1.0, total - bad + 1.0, p) - math.log(total + 1) - math.log(p) - math.log1p(-p)
    )

    assert log_pmf == pytest.approx(stats.binom.logpmf(bad, total, p), rel=1e-10)
