"""The declared chance of a false rollback is shared over the objectives that may roll back."""

import math

import pytest

from kedge.decide.statistics import alpha


@pytest.mark.parametrize(
    ("declared", "objectives", "e_value"), [(0.01, 1, 100.0), (0.01, 6, 600.0), (0.05, 2, 40.0), (0.5, 1, 2.0)]
)
def test_each_objective_must_reach_k_over_alpha(declared: float, objectives: int, e_value: float) -> None:
    assert alpha.threshold(declared, objectives) == pytest.approx(math.log(e_value), rel=1e-15)
    assert alpha.share(declared, objectives) == pytest.approx(1 / e_value, rel=1e-15)
