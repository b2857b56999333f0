"""The compiled kernel and numpy count alike, and both as `profiles.count` does one column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_server import counting, profiles

WAYS = [pytest.param(True, id="compiled"), pytest.param(False, id="numpy")]
# Edges are drawn from these too, so that values on an edge are common.
VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.0000000000000004, 3.5, -7.0, 1e300, 5e-324, np.inf, -np.inf, np.nan])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[profiles.Bins | None], Any]:
    """Draws bins of some columns and rows over all of them, more than a tile of the kernel now and then."""
    width = draw(st.integers(0, 11))
    finite = VALUES.filter(np.isfinite)
    # None at all for a feature of which the reference has no number.
    edges = st.just(()) | st.lists(finite, min_size=2, max_size=11, unique=True).map(lambda e: tuple(sorted(e)))
    drawn = [draw(st.none() | edges) for _ in range(width)]
    bins = [None if e is None else profiles.Bins(f"x{i}", edges=e) for i, e in enumerate(drawn)]
    n_rows = draw(st.sampled_from([0, 1, 3, 31, 32, 33, 100]))
    seed = draw(st.integers(0, 2**32 - 1))
    pool = np.array(draw(st.lists(VALUES, min_size=1, max_size=8)))
    return bins, np.random.default_rng(seed).choice(pool, (n_rows, width))


def test_the_kernel_has_been_compiled() -> None:
    assert (Path(counting.__file__).parent / "libcounting.so").exists(), "run: make venv"


@pytest.mark.parametrize("native", WAYS)
@given(tables())
def test_every_column_is_counted_as_if_alone(native: bool, table: tuple[list[profiles.Bins | None], Any]) -> None:
    bins, rows = table
    counter = counting.Counter(bins, native=native)
    half = len(rows) // 2
    outside = np.concatenate([counter.add(rows[:half]), counter.add(rows[half:])])

    expected, each = np.zeros(len(rows), dtype=bool), 0
    for i, b in enumerate(bins):
        assert counter.missing([i]) == np.isnan(rows[:, i]).sum()
        if b is not None:
            assert counter.counts(i).tolist() == profiles.count(b, rows[:, i]).tolist()
            if b.edges:
                beyond = (rows[:, i] < b.edges[0]) | (rows[:, i] > b.edges[-1])
                assert counter.outside([i]) == beyond.sum()
                expected |= beyond
                each += int(beyond.sum())
    assert counter.outside(range(len(bins))) == each
    assert outside.tolist() == expected.tolist()


@pytest.mark.parametrize("native", WAYS)
@pytest.mark.parametrize("layout", [np.asfortranarray, lambda rows: np.repeat(rows, 2, axis=1)[:, ::2]])
def test_rows_may_lie_in_memory_in_any_order(native: bool, layout: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(70, 6))
    bins = [profiles.measure(f"x{i}", rows[:, i]) for i in range(6)]
    counter = counting.Counter(bins, native=native)
    counter.add(layout(rows))
    assert [tuple(counter.counts(i)) for i in range(6)] == [b.counts for b in bins]


@pytest.mark.parametrize("native", WAYS)
@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.zeros((2, 5)), np.zeros(4), np.zeros((2, 4), dtype=np.int64)])
def test_what_are_not_rows_of_that_many_numbers_is_refused(native: bool, rows: Any) -> None:
    counter = counting.Counter([profiles.Bins("x", edges=(0.0, 1.0))] * 4, native=native)
    with pytest.raises(ValueError, match="4 columns of float64"):
        counter.add(rows)
