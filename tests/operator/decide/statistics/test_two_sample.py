"""The candidate against stable: evidence from what they do not share."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import optimize, stats

from kedge.decide.statistics import two_sample
from kedge.decide.statistics.two_sample import TwoSampleState

counts = st.tuples(st.integers(0, 5000), st.integers(0, 5000)).map(lambda pair: (min(pair), max(pair)))
blocks = st.lists(st.tuples(counts, counts), max_size=12)


def _update(
    state: TwoSampleState, candidate: tuple[float, float], stable: tuple[float, float], tolerance: float = 0.0
) -> TwoSampleState:
    return two_sample.update(
        state,
        candidate_bad=candidate[0],
        candidate_total=candidate[1],
        stable_bad=stable[0],
        stable_total=stable[1],
        tolerance=tolerance,
    )


KNOWN = _update(TwoSampleState(), (0, 0), (40, 2000))
"""Stable's fraction is known to be about 2 %."""


def test_nothing_seen_is_no_evidence() -> None:
    assert TwoSampleState().log_e == 0.0
    assert _update(KNOWN, (0, 0), (0, 0)) == KNOWN


def test_blocks_of_stable_alone_teach_but_do_not_judge() -> None:
    assert KNOWN.log_e == 0.0
    assert (KNOWN.stable_bad, KNOWN.stable_total) == (40, 2000)


def test_the_candidate_waits_for_stable() -> None:
    waiting = _update(KNOWN, (9, 10), (0, 0))
    judged = _update(waiting, (0, 0), (1, 50))

    assert waiting.log_e == 0.0
    assert judged.log_e == _update(KNOWN, (9, 10), (1, 50)).log_e > 0.0
    assert (judged.waiting_total, judged.waiting_blocks) == (0.0, 0)


def test_what_waited_too_long_is_given_up() -> None:
    state = KNOWN
    for _ in range(two_sample.CARRIED_BLOCKS + 1):
        state = _update(state, (9, 10), (0, 0))

    assert (state.waiting_bad, state.waiting_total, state.waiting_blocks) == (0.0, 0.0, 0)
    assert _update(state, (0, 0), (1, 50)).log_e == 0.0


def test_quiet_polls_do_not_age_what_waits() -> None:
    waiting = _update(KNOWN, (9, 10), (0, 0))

    assert _update(waiting, (0, 0), (0, 0)) == waiting


@given(history=blocks, tolerance=st.sampled_from([0.0, 0.005, 0.3]), total=st.integers(1, 500))
def test_one_more_bad_answer_of_the_candidate_is_more_evidence(
    history: list[tuple[tuple[int, int], tuple[int, int]]], tolerance: float, total: int
) -> None:
    state = TwoSampleState()
    for candidate, stable in history:
        state = _update(state, candidate, stable, tolerance)

    values = [
        _update(state, (bad, total), (3, 300), tolerance).log_e for bad in range(0, total + 1, max(1, total // 9))
    ]

    assert values == sorted(values)


@given(history=blocks, tolerance=st.floats(0, 0.999))
@example(history=[((2**53, 2**53), (0, 2**53))] * 3, tolerance=0.0)
@example(history=[((0, 2**53), (2**53, 2**53))] * 3, tolerance=0.999)
@example(history=[((1, 1), (0, 2**53)), ((2**53, 2**53), (1, 1))], tolerance=1e-9)
def test_every_history_leaves_finite_numbers(
    history: list[tuple[tuple[int, int], tuple[int, int]]], tolerance: float
) -> None:
    state = TwoSampleState()
    for candidate, stable in history:
        state = _update(state, candidate, stable, tolerance)

    numbers = [state.log_e, *state.log_wealth, state.stable_bad, state.stable_total, state.waiting_total]
    assert all(math.isfinite(number) for number in numbers)
    assert state.stable_bad <= state.stable_total


@given(history=blocks)
def test_a_restart_between_any_two_blocks_changes_no_bit(
    history: list[tuple[tuple[int, int], tuple[int, int]]],
) -> None:
    straight = restarted = TwoSampleState()
    for candidate, stable in history:
        straight = _update(straight, candidate, stable, 0.01)
        saved = json.dumps(dataclasses.asdict(_update(restarted, candidate, stable, 0.01)), allow_nan=False)
        restarted = TwoSampleState.from_fields(json.loads(saved))

    assert restarted == straight


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"log_wealth": [0.0]}, {"log_wealth": None}, {"surprise": 1}],
    ids=["another version", "too few rungs", "no rungs", "unknown field"],
)
def test_a_state_of_another_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="two-sample state"):
        TwoSampleState.from_fields(dataclasses.asdict(TwoSampleState()) | change)


def test_a_state_of_another_version_is_not_continued() -> None:
    with pytest.raises(ValueError, match="version"):
        _update(dataclasses.replace(KNOWN, version=2), (0, 1), (0, 1))


@pytest.mark.parametrize("tolerance", [0.0, 1e-6, 0.01, 0.3])
@pytest.mark.parametrize(("c_total", "s_total"), [(5, 95), (1, 1), (4750, 250), (0.5, 12.5)])
def test_the_nearest_null_minimises_the_divergence(tolerance: float, c_total: float, s_total: float) -> None:
    c, s = 0.5, 0.02

    def divergence(x: float) -> float:
        arms = ((c_total, c, x + tolerance), (s_total, s, x))
        return sum(n * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))) for n, p, q in arms)

    found = two_sample.nearest_in_null(c, s, c_total, s_total, tolerance)
    best = optimize.minimize_scalar(divergence, bounds=(s, c - tolerance), method="bounded", options={"xatol": 1e-12})

    assert divergence(found) <= best.fun + 1e-9
    assert found == pytest.approx(best.x, rel=1e-4)


@pytest.mark.parametrize("tolerance", [0.0, 0.02])
@pytest.mark.parametrize(("c_total", "s_total"), [(1, 4), (3, 3), (6, 2)])
@pytest.mark.parametrize("state", [TwoSampleState(), KNOWN], ids=["nothing known", "stable known"])
def test_no_member_of_the_null_expects_a_gain(
    state: TwoSampleState, tolerance: float, c_total: int, s_total: int
) -> None:
    """The guarantee itself, enumerated: the mean of the e-value over all outcomes of a block is at most 1."""
    outcomes = list(itertools.product(range(c_total + 1), range(s_total + 1)))
    e = {o: math.exp(_update(state, (o[0], c_total), (o[1], s_total), tolerance).log_e) for o in outcomes}

    for s in np.linspace(0, 1 - tolerance, 21):
        for c in np.linspace(0, s + tolerance, 8):
            mean = sum(e[b, d] * stats.binom.pmf(b, c_total, c) * stats.binom.pmf(d, s_total, s) for b, d in outcomes)
            assert mean <= 1 + 1e-9


def test_a_shared_slowdown_gives_no_evidence_and_hides_no_later_fault() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        state = TwoSampleState()
        for poll in range(40):
            shared = 0.3 if 10 <= poll < 20 else 0.002
            state = _update(state, (rng.binomial(100, shared), 100), (rng.binomial(900, shared), 900))
            assert state.log_e < math.log(100)
        for _ in range(40):
            state = _update(state, (rng.binomial(100, 0.05), 100), (rng.binomial(900, 0.002), 900))
        assert state.log_e >= math.log(100)


@pytest.mark.parametrize(("requests", "share"), [(5, 0.5), (100, 0.05), (2000, 0.1)])
def test_equal_revisions_are_told_apart_at_most_at_the_declared_rate(requests: int, share: float) -> None:
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(150):
        state = TwoSampleState()
        for _ in range(40):
            c, s = rng.binomial(requests, share), rng.binomial(requests, 1 - share)
            state = _update(state, (rng.binomial(c, 0.03), c), (rng.binomial(s, 0.03), s))
            if state.log_e >= math.log(20):
                rejected += 1
                break

    assert rejected / 150 <= 0.05


def test_a_difference_within_the_tolerance_is_tolerated() -> None:
    rng = np.random.default_rng(8)
    state = TwoSampleState()
    for _ in range(200):
        state = _update(state, (rng.binomial(500, 0.02), 500), (rng.binomial(500, 0.01), 500), 0.01)

    assert state.log_e < math.log(100)
