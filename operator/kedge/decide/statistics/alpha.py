"""How the declared chance of a false rollback is shared out over what may roll back.

With k objectives each tested at alpha / k, the chance that any of them ever fails a good candidate is at most
alpha, whatever their dependence (the union bound).
"""

from __future__ import annotations

import math

from kedge.decide.statistics import checks


def share(alpha: float, objectives: int) -> float:
    """Return the chance of a false rejection that each of `objectives` tests may spend.

    Raises:
        ValueError: alpha is outside (0, 1), or there is no objective.
    """
    checks.open_fraction(alpha, "alpha")
    checks.whole(objectives, "objectives", low=1)
    return alpha / objectives


def threshold(alpha: float, objectives: int) -> float:
    """Return the log e-value at which one of `objectives` tests fails the candidate: log(k / alpha).

    Raises:
        ValueError: alpha is outside (0, 1), or there is no objective.
    """
    checks.open_fraction(alpha, "alpha")
    checks.whole(objectives, "objectives", low=1)
    return math.log(objectives) - math.log(alpha)
