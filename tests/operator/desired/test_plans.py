import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.desired import plans


@pytest.mark.parametrize(
    ("weight", "stable", "candidate"),
    [(5, 1, 1), (10, 9, 1), (25, 3, 1), (50, 3, 3), (33, 10, 5), (75, 4, 4), (100, 4, 4), (1, 100, 1), (20, 20, 5)],
)
def test_the_candidate_gets_the_pods_nearest_to_its_weight(weight: int, stable: int, candidate: int) -> None:
    assert plans.candidate_replicas(weight, stable) == candidate


@given(st.integers(1, 100), st.integers(1, 500))
def test_the_surge_is_bounded_and_never_empty(weight: int, stable: int) -> None:
    assert 1 <= plans.candidate_replicas(weight, stable) <= stable


@given(st.integers(1, 99), st.integers(1, 500))
def test_a_higher_weight_never_takes_pods_away(weight: int, stable: int) -> None:
    assert plans.candidate_replicas(weight, stable) <= plans.candidate_replicas(weight + 1, stable)
