"""Beta integrals in log space, without cancellation at a thousand million events.

The textbook form of a Beta-mixture e-value is a difference of numbers as large as the event count, which at
1e9 events leaves six digits and a wrong order between neighbours. Both forms here subtract those terms on
paper instead: above the boundary through the deviance (Loader, "Fast and accurate computation of binomial
probabilities", 2000), below it through the continued fraction of the incomplete beta function
(DLMF 8.17.22), whose leading factor cancels exactly.
"""

from __future__ import annotations

import math

from scipy import special

_SMALLEST_TAIL = 1e-200
"""Under this the incomplete beta function nears underflow and the continued fraction takes over."""

_STIRLING_FROM = 16.0
"""From here on five terms of Stirling's series are exact to double precision."""

_TINY = 1e-300
_MOST_TERMS = 20_000


def deviance(observed: float, expected: float, difference: float) -> float:
    """Return `observed * log(observed / expected) - difference`, precise where the two are close.

    Args:
        observed: A count, at least 0.
        expected: What was expected, above 0.
        difference: `observed - expected`, passed in so that the caller can compute it once.
    """
    if observed < _TINY:
        return -difference
    if abs(difference) < 0.1 * (observed + expected):
        # With v = (x - m) / (x + m): log(x / m) = 2 (v + v^3/3 + v^5/5 + ...).
        v = difference / (observed + expected)
        result = difference * v
        term = 2.0 * observed * v
        square = v * v
        for odd in range(3, 60, 2):
            term *= square
            previous = result
            result += term / odd
            if result == previous:
                break
        return result
    return observed * math.log(observed / expected) - difference


def binomial_deviance(a: float, b: float, fraction: float) -> float:
    """Return `(a + b) * KL(a / (a + b) || fraction)`, at least 0."""
    total = a + b
    difference = a - total * fraction
    first = deviance(a, total * fraction, difference)
    return max(0.0, first + deviance(b, total * (1.0 - fraction), -difference))


def _stirling_remainder(x: float) -> float:
    """Return log Gamma(x) minus Stirling's leading terms, `(x - 1/2) log x - x + log(2 pi) / 2`."""
    if x < _STIRLING_FROM:
        return math.lgamma(x) - ((x - 0.5) * math.log(x) - x + 0.5 * math.log(2.0 * math.pi))
    inverse = 1.0 / x
    square = inverse * inverse
    series = 1.0 / 12 - square * (1.0 / 360 - square * (1.0 / 1260 - square * (1.0 / 1680 - square / 1188)))
    return inverse * series


def log_beta_over_power(a: float, b: float, fraction: float) -> float:
    """Return `log(B(a, b) / (fraction**a * (1 - fraction)**b))` for a, b > 0."""
    total = a + b
    remainder = _stirling_remainder(a) + _stirling_remainder(b) - _stirling_remainder(total)
    spread = 0.5 * (math.log(2.0 * math.pi) + math.log(total) - math.log(a) - math.log(b))
    return binomial_deviance(a, b, fraction) + spread + remainder


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of `I_x(a, b)`, by the modified Lentz method."""
    numerator = 1.0
    denominator = 1.0 - (a + b) * x / (a + 1.0)
    denominator = 1.0 / (denominator if abs(denominator) > _TINY else _TINY)
    result = denominator
    for m in range(1, _MOST_TERMS):
        even = 2 * m
        for coefficient in (
            m * (b - m) * x / ((a + even - 1.0) * (a + even)),
            -(a + m) * (a + b + m) * x / ((a + even) * (a + even + 1.0)),
        ):
            denominator = 1.0 + coefficient * denominator
            numerator = 1.0 + coefficient / numerator
            denominator = 1.0 / (denominator if abs(denominator) > _TINY else _TINY)
            numerator = numerator if abs(numerator) > _TINY else _TINY
            step = denominator * numerator
            result *= step
        if abs(step - 1.0) < 1e-15:
            break
    return result


def log_tail_over_power(a: float, b: float, fraction: float) -> float:
    """Return the log of a Beta integral above `fraction`, relative to its integrand at `fraction`.

    That is `log(integral from f to 1 of p**(a-1) (1-p)**(b-1) dp / (f**a (1-f)**b))`. It grows with a and
    falls with b, down to about `-log(b)`: it never underflows.

    Args:
        a: Not 0; it may be above -1, as the integral stays clear of p = 0.
        b: Above 0.
        fraction: Between 0 and 1.
    """
    tail = float(special.betaincc(a, b, fraction)) if a > 0.0 else 0.0
    if tail > _SMALLEST_TAIL:
        return math.log(tail) + log_beta_over_power(a, b, fraction)
    if a > 0.0 or fraction * (a + b + 2.0) > a + 1.0:
        return math.log(_continued_fraction(b, a, 1.0 - fraction)) - math.log(b)
    # By parts, from the integral for a + 1; what is subtracted is well below 1 here.
    return math.log1p(-(a + b) * fraction * math.exp(log_tail_over_power(a + 1.0, b, fraction))) - math.log(-a)
