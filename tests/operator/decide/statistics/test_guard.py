"""The watch without an end: alarms are rare while all is well, and quick when it is not."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from kedge.decide.statistics import guard
from kedge.decide.statistics.guard import GuardState

polls = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 5000)).map(lambda pair: (min(pair), max(pair))), max_size=20
)


def _watch(history: list[tuple[int, int]], budget: float, state: GuardState | None = None) -> GuardState:
    state = state or GuardState()
    for bad, total in history:
        state = guard.update(state, bad=bad, total=total, budget=budget)
    return state


def test_nothing_seen_is_no_alarm() -> None:
    assert GuardState().log_e == 0.0
    assert _watch([(0, 0)] * 5, 0.01) == GuardState()


@given(history=polls, budget=st.floats(1e-6, 0.9))
@example(history=[(2**53, 2**53)] * 3 + [(0, 2**53)] * 3, budget=1e-6)
@example(history=[(2**53, 2**53)] * 3, budget=0.9)
def test_every_history_leaves_finite_numbers(history: list[tuple[int, int]], budget: float) -> None:
    state = _watch(history, budget)

    assert math.isfinite(state.log_e)
    assert all(0.0 <= value < math.inf for value in state.log_detectors)


@given(history=polls, total=st.integers(1, 1000), budget=st.floats(1e-4, 0.5))
def test_one_more_bad_event_brings_an_alarm_closer(history: list[tuple[int, int]], total: int, budget: float) -> None:
    state = _watch(history, budget)

    values = [_watch([(bad, total)], budget, state).log_e for bad in range(0, total + 1, max(1, total // 9))]

    assert values == sorted(values)


@given(history=polls)
def test_a_restart_between_any_two_polls_changes_no_bit(history: list[tuple[int, int]]) -> None:
    straight = restarted = GuardState()
    for poll in history:
        straight = _watch([poll], 0.01, straight)
        saved = json.dumps(dataclasses.asdict(_watch([poll], 0.01, restarted)), allow_nan=False)
        restarted = GuardState.from_fields(json.loads(saved))

    assert restarted == straight


@pytest.mark.parametrize("change", [{"version": 2}, {"log_detectors": [0.0]}, {"log_detectors": None}, {"x": 1}])
def test_a_state_of_another_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="guard state"):
        GuardState.from_fields(dataclasses.asdict(GuardState()) | change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bad": math.nan, "total": 1, "budget": 0.1}, "bad must be a finite"),
        ({"bad": 2, "total": 1, "budget": 0.1}, "must not exceed"),
        ({"bad": 0, "total": 1, "budget": 0.0}, "budget must lie"),
    ],
)
def test_impossible_polls_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guard.update(GuardState(), **arguments)


def test_a_state_of_another_version_is_not_continued() -> None:
    with pytest.raises(ValueError, match="version"):
        guard.update(GuardState(version=2), bad=0, total=1, budget=0.1)


@pytest.mark.parametrize(("polls", "objectives"), [(0.5, 1), (math.inf, 1), (math.nan, 1), (100, 0)])
def test_impossible_thresholds_are_refused(polls: float, objectives: int) -> None:
    with pytest.raises(ValueError, match="must"):
        guard.threshold(polls, objectives)


@pytest.mark.parametrize("budget", [1e-6, 0.01, 0.5])
def test_it_is_the_sum_of_the_products_from_every_start(budget: float) -> None:
    history = [(0, 40), (3, 50), (1, 10), (7, 60)]
    detectors = []
    for if_bad, if_good in guard.gains(budget):
        steps = [math.exp(bad * if_bad + (total - bad) * if_good) for bad, total in history]
        detectors.append(sum(math.prod(steps[start:]) for start in range(len(steps))))

    assert _watch(history, budget).log_e == pytest.approx(math.log1p(np.mean(detectors)), rel=1e-12)


@pytest.mark.parametrize("budget", [0.01, 0.2])
def test_it_expects_to_grow_by_one_poll_at_a_time(budget: float) -> None:
    """The guarantee itself, enumerated: the mean of 1 + M grows by exactly 1 at p = budget, and by less below."""
    state, n = _watch([(1, 4), (0, 6)], budget), 5
    now = math.exp(state.log_e)
    for p, growth in itertools.product([0.0, budget / 2, budget], [1.0]):
        mean = sum(
            math.exp(_watch([(bad, n)], budget, state).log_e) * stats.binom.pmf(bad, n, p) for bad in range(n + 1)
        )
        assert mean <= now + growth + 1e-9
        if p == budget:
            assert mean == pytest.approx(now + growth, rel=1e-12)


def _alarms(fraction: float, *, polls: int, runs: int, declared: float, seed: int) -> np.ndarray:
    """The poll of the first alarm in each run of 100 requests a poll with budget 1 %; inf where none."""
    rng, limit = np.random.default_rng(seed), guard.threshold(declared, 1)
    first = np.full(runs, math.inf)
    for run in range(runs):
        state = GuardState()
        for poll, bad in enumerate(rng.binomial(100, fraction, polls).tolist(), start=1):
            state = guard.update(state, bad=bad, total=100, budget=0.01)
            if state.log_e >= limit:
                first[run] = poll
                break
    return first


def test_false_alarms_are_rarer_than_declared() -> None:
    first = _alarms(0.01, polls=600, runs=120, declared=100, seed=1)

    # Runs that were cut off count with their length, which only lowers the mean.
    assert np.minimum(first, 600).mean() >= 100


def test_a_change_is_found_within_twice_the_optimal_delay() -> None:
    p, b = 0.05, 0.01
    divergence = 100 * (p * math.log(p / b) + (1 - p) * math.log((1 - p) / (1 - b)))

    first = _alarms(p, polls=100, runs=120, declared=10_000, seed=2)

    assert np.median(first) <= 2 * math.ceil(math.log(10_000) / divergence)


def test_good_times_do_not_hide_a_later_change() -> None:
    at_once = _watch([(5, 100)] * 10, 0.01).log_e
    after_a_day = _watch([(0, 100)] * 17_000 + [(5, 100)] * 10, 0.01).log_e

    assert after_a_day == pytest.approx(at_once, abs=0.5)


@pytest.mark.parametrize(("polls", "objectives", "level"), [(100, 1, 101), (100, 6, 601), (1, 1, 2)])
def test_objectives_share_the_declared_time(polls: float, objectives: int, level: float) -> None:
    assert guard.threshold(polls, objectives) == pytest.approx(math.log(level), rel=1e-15)
