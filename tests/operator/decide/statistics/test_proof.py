"""`passWhen: Proven`: the objective is shown to be met."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.decide.statistics import confidence, proof, ratio


@given(total=st.integers(0, 10**7), share=st.floats(0, 1), budget=st.floats(1e-5, 0.5))
def test_proven_means_the_interval_lies_within_the_budget(total: int, share: float, budget: float) -> None:
    bad = math.floor(share * total)

    assert proof.proven(bad, total, budget, 0.05) == (confidence.confidence_sequence(bad, total, 0.05).high <= budget)


@given(total=st.integers(1, 10**7), share=st.floats(0, 0.1), budget=st.floats(1e-5, 0.5))
def test_what_is_proven_does_not_fail(total: int, share: float, budget: float) -> None:
    bad = math.floor(share * total)

    assert not (proof.proven(bad, total, budget, 0.05) and ratio.log_e_value(bad, total, budget) > 0)


@pytest.mark.parametrize("budget", [0.5, 0.01, 1e-6])
def test_the_fewest_requests_are_just_enough(budget: float) -> None:
    fewest = proof.fewest_requests(budget, 0.05)

    assert proof.proven(0, fewest, budget, 0.05)
    assert not proof.proven(0, fewest - 1, budget, 0.05)


def test_a_budget_beyond_counting_is_refused() -> None:
    with pytest.raises(ValueError, match="too small to be proven"):
        proof.fewest_requests(1e-17, 0.05)


def test_a_candidate_over_its_budget_is_rarely_proven() -> None:
    rng, runs, looks = np.random.default_rng(3), 200, 15
    bad = rng.binomial(200, 0.05, (runs, looks)).cumsum(axis=1)

    proven = [any(proof.proven(int(b), 200 * (i + 1), 0.05, 0.05) for i, b in enumerate(row)) for row in bad]

    assert np.mean(proven) <= 0.05
