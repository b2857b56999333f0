from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_server import pace

SECONDS = 0.05
# More than fit into any batch that should be refused.
WAITING = 8192


def saturate(known: pace.Pace, a_batch: float, a_row: float, batches: int) -> list[tuple[int, float]]:
    """Lets a model with these costs predict all it may; returns rows and seconds of each batch."""
    course = []
    for _ in range(batches):
        rows = min(WAITING, max(1, known.rows_at_once(SECONDS)))
        seconds = a_batch + rows * a_row
        known.add(rows, seconds)
        course.append((rows, seconds))
    return course


def test_nothing_is_foretold_before_the_first_batch() -> None:
    known = pace.Pace()
    assert (known.seconds_a_row, known.rows_at_once(SECONDS), known.worst(1)) == (0.0, 0, math.inf)


@given(a_batch=st.floats(0, 2), a_row=st.floats(1e-6, 2))
def test_a_saturated_model_reaches_near_half_of_its_best_throughput_at_least(a_batch: float, a_row: float) -> None:
    known = pace.Pace()
    saturate(known, a_batch, a_row, 30)
    course = saturate(known, a_batch, a_row, 100)
    throughput = sum(rows for rows, _ in course) / sum(seconds for _, seconds in course)
    assert throughput >= 0.45 * WAITING / (a_batch + WAITING * a_row)


@given(a_batch=st.floats(0, 2), a_row=st.floats(1e-6, 2))
def test_no_batch_takes_much_longer_than_the_bound_or_a_few_single_rows(a_batch: float, a_row: float) -> None:
    course = saturate(pace.Pace(), a_batch, a_row, 130)
    assert max(seconds for _, seconds in course) <= max(4 * SECONDS, 6 * (a_batch + a_row))
    # Trying whether more would fit is the exception.
    over = [seconds for _, seconds in course if seconds > max(2 * SECONDS, 4 * (a_batch + a_row))]
    assert len(over) <= 0.1 * len(course)


@pytest.mark.parametrize("one_row", [0.0001, 0.01, 1.0])
def test_a_model_that_takes_hardly_longer_for_many_rows_soon_gets_all(one_row: float) -> None:
    course = saturate(pace.Pace(), one_row, one_row / 10_000, 15)
    assert course[-1][0] == WAITING


def test_a_stall_makes_batches_smaller_for_a_while_only() -> None:
    known = pace.Pace()
    saturate(known, 0.003, 1e-6, 20)
    known.add(WAITING, 20.0)
    course = saturate(known, 0.003, 1e-6, 300)
    assert course[0][0] < WAITING
    assert course[-1][0] == WAITING


def test_the_worst_of_a_size_counts_at_once_and_fades() -> None:
    known = pace.Pace()
    known.add(5, 0.001)
    known.add(4, 0.1)
    assert known.worst(7) == 0.1
    assert known.worst(8) == math.inf
    for _ in range(60):
        known.add(6, 0.001)
    assert known.worst(5) == pytest.approx(0.001)


def test_a_row_takes_what_it_took_in_the_batches_of_late() -> None:
    known = pace.Pace()
    known.add(1, 1.0)
    for _ in range(30):
        known.add(100, 2.0)
    assert known.seconds_a_row == pytest.approx(0.02, rel=0.01)
