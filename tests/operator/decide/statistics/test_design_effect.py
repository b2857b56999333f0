"""Bursts make requests tell less; independent requests are left alone."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kedge.decide.statistics import design_effect
from kedge.decide.statistics.design_effect import Spread

polls = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 5000)).map(lambda pair: (min(pair), max(pair))), max_size=40
)


def _spread(history: list[tuple[int, int]]) -> Spread:
    spread = Spread()
    for bad, total in history:
        spread = design_effect.add(spread, bad, total)
    return spread


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([], id="nothing seen"),
        pytest.param([(3, 100)], id="one poll"),
        pytest.param([(0, 100)] * 50, id="nothing bad"),
        pytest.param([(100, 100)] * 50, id="nothing good"),
        pytest.param([(0, 0)] * 50, id="no traffic"),
        pytest.param([(1, 100)] * 50, id="more even than chance"),
    ],
)
def test_without_visible_spread_every_request_counts(history: list[tuple[int, int]]) -> None:
    assert design_effect.design_effect(_spread(history)) == 1.0


def test_it_is_pearsons_dispersion_shrunk_towards_one() -> None:
    history = [(0, 200), (9, 150), (1, 300), (14, 250), (2, 100)]
    bad, total = (sum(column) for column in zip(*history, strict=True))
    p = bad / total
    pearson = sum((b - n * p) ** 2 / (n * p * (1 - p)) for b, n in history)

    prior = design_effect.PRIOR
    expected = (pearson + prior) / (len(history) - 1 + prior)
    assert design_effect.design_effect(_spread(history)) == pytest.approx(expected, rel=1e-12)


@given(history=polls)
@example(history=[(2**53, 2**53), (0, 2**53)])
@example(history=[(0, 1), (2**53, 2**53)])
def test_it_never_strengthens_evidence_nor_blinds_the_tests(history: list[tuple[int, int]]) -> None:
    assert 1.0 <= design_effect.design_effect(_spread(history)) <= design_effect.LARGEST


@given(history=polls)
def test_a_restart_changes_no_bit(history: list[tuple[int, int]]) -> None:
    saved = json.dumps(dataclasses.asdict(_spread(history)), allow_nan=False)

    assert Spread.from_fields(json.loads(saved)) == _spread(history)


def test_a_spread_of_another_version_is_not_continued() -> None:
    with pytest.raises(ValueError, match="version"):
        design_effect.add(Spread(version=2), 0, 1)


@pytest.mark.parametrize("change", [{"version": 2}, {"polls": None}, {"blocks": {"x": 1}}, {"x": 1}])
def test_a_spread_of_another_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="spread"):
        Spread.from_fields(dataclasses.asdict(Spread()) | change)


@pytest.mark.parametrize(("bad", "total"), [(math.nan, 1), (2, 1), (-1, 1)])
def test_impossible_counts_are_refused(bad: float, total: float) -> None:
    with pytest.raises(ValueError, match="bad"):
        design_effect.add(Spread(), bad, total)


@pytest.mark.parametrize(("requests", "fraction"), [(20, 0.01), (200, 0.02), (5000, 0.1)])
def test_independent_requests_are_hardly_discounted(requests: int, fraction: float) -> None:
    rng = np.random.default_rng(1)
    estimates = [
        design_effect.design_effect(_spread([(int(b), requests) for b in rng.binomial(requests, fraction, 60)]))
        for _ in range(200)
    ]

    assert np.mean(estimates) < 1.25
    assert np.max(estimates) < 3.5


@pytest.mark.parametrize("true_effect", [3.0, 10.0])
def test_bursts_are_measured(true_effect: float) -> None:
    # Beta-binomial polls: variance is binomial times 1 + (n - 1) rho.
    rng, n, p = np.random.default_rng(2), 200, 0.05
    rho = (true_effect - 1) / (n - 1)
    a, b = p * (1 / rho - 1), (1 - p) * (1 / rho - 1)
    estimates = [
        design_effect.design_effect(_spread([(int(x), n) for x in rng.binomial(n, rng.beta(a, b, 200))]))
        for _ in range(100)
    ]

    assert 0.75 * true_effect < np.median(estimates) < 1.25 * true_effect


def test_bursts_that_outlast_a_poll_are_measured_over_blocks() -> None:
    rng, n, p, rho, lasting = np.random.default_rng(4), 200, 0.05, 4 / 199, 6
    a, b = p * (1 / rho - 1), (1 - p) * (1 / rho - 1)
    spread = _spread([(int(x), n) for x in rng.binomial(n, np.repeat(rng.beta(a, b, 60), lasting))])

    # Within a poll the effect is 5; over a block of two bursts it is 1 + 4 * 6.
    assert spread.polls.effect(0) == pytest.approx(5, rel=0.3)
    assert design_effect.design_effect(spread) > 15


def test_larger_polls_need_a_larger_effect_and_smaller_ones_no_smaller() -> None:
    spread = _spread([(0, 100), (12, 100), (3, 100), (15, 100), (0, 100)] * 20)
    own = design_effect.design_effect(spread)

    assert design_effect.design_effect(spread, poll_size=10) == own
    assert design_effect.design_effect(spread, poll_size=100) == own
    assert design_effect.design_effect(spread, poll_size=298) == pytest.approx(1 + 3 * (own - 1))
    assert design_effect.design_effect(spread, poll_size=1e12) == design_effect.LARGEST
    with pytest.raises(ValueError, match="poll_size"):
        design_effect.design_effect(spread, poll_size=math.nan)


def test_an_incident_is_forgotten() -> None:
    spread = _spread([(2, 200)] * 50 + [(200, 200)] * 3)
    after = design_effect.design_effect(spread)
    for _ in range(3000):
        spread = design_effect.add(spread, 2, 200)

    assert after > 10
    assert design_effect.design_effect(spread) < 1.5
