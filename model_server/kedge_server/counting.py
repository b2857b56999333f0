"""Counts rows of numbers over the bins of many features at once.

A compiled kernel (`counting.c`) does it where it has been built, numpy elsewhere; both count
the same. Data quality is counted for every row, so at a hundred rows a request this is what the counters
cost: numpy took 40 % of such a server's throughput.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kedge_server import profiles, protocol

# As in counting.c: so many features are compared with so many edges at once.
_LANES, _EDGES_AT_ONCE = 4, 4


def _load() -> ctypes._NamedFuncPointer | None:
    path = Path(__file__).with_name("libcounting.so")
    if not path.exists():
        return None
    # It takes microseconds, and waiting for the interpreter's lock after it could take milliseconds: keep the lock.
    kernel = ctypes.PyDLL(str(path)).kedge_count
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    kernel.argtypes = [pointer, size, size, size, *[pointer] * 7]
    kernel.restype = None
    return kernel


_kernel = _load()


class Counter:
    """Counts of the columns of a matrix, some of which are features with bins.

    Args:
        bins: Those of each column (n_columns,); of a column without bins only what is missing is counted.
        native: Whether the compiled kernel counts; by default where there is one.
    """

    def __init__(self, bins: Sequence[profiles.Bins | None], *, native: bool = _kernel is not None) -> None:
        self._native = native
        self._width = len(bins)
        padded = _up_to(_LANES, self._width)
        n_edges = np.zeros(padded, dtype=np.intp)
        n_edges[: self._width] = [len(b.edges) if b else 0 for b in bins]
        self._n_edges = n_edges[: self._width]
        most = n_edges.reshape(-1, _LANES).max(axis=1)
        self._compared = np.array([_up_to(_EDGES_AT_ONCE, n) for n in most.tolist()], dtype=np.uintp)
        self._edges = np.full((int(self._compared.max(initial=0)), padded), np.nan)
        self._lowest, self._highest = np.full(padded, np.nan), np.full(padded, np.nan)
        for i, b in enumerate(bins):
            if b is not None and b.edges:
                edges = profiles.comparable_edges(b)
                self._edges[: len(edges), i] = edges
                self._lowest[i], self._highest[i] = edges[0], edges[-1]
        self._rows = 0
        self._above = np.zeros(self._edges.shape, dtype=np.int64)
        self._missing = np.zeros(padded, dtype=np.int64)
        tables = (self._edges, self._compared, self._lowest, self._highest, self._above, self._missing)
        self._tables = (padded, *(table.ctypes.data for table in tables))

    def add(self, values: protocol.Array) -> protocol.Array:
        """Counts float64 (n_rows, n_columns), and returns bool (n_rows,): which rows have a number out of range.

        Raises:
            ValueError: The rows have another shape or type; the kernel would read what is not theirs.
        """
        if values.ndim != 2 or values.shape[1] != self._width or values.dtype != np.float64:
            raise ValueError(f"{values.shape} of {values.dtype} are not rows with {self._width} columns of float64")
        self._rows += len(values)
        return self._add_native(values) if self._native else self._add_by_numpy(values)

    def counts(self, column: int) -> protocol.Array:
        """Returns int64 (n_bins,): the rows in each bin of a column that has bins, missing values last."""
        above = self._above[: self._n_edges[column], column]
        missing = self._missing[column]
        return np.concatenate([-np.diff(above, prepend=self._rows - missing, append=0), [missing]])

    def missing(self, columns: Sequence[int]) -> int:
        """Returns how many values of some columns were missing."""
        return int(self._missing[list(columns)].sum())

    def outside(self, columns: Sequence[int]) -> int:
        """Returns how many values of some columns were out of range; of a column without edges none is."""
        at = [column for column in columns if self._n_edges[column]]
        if not at:
            return 0
        below = self._rows - self._missing[at] - self._above[0, at]
        return int((below + self._above[self._n_edges[at] - 1, at]).sum())

    def _add_native(self, values: protocol.Array) -> protocol.Array:
        assert _kernel is not None  # noqa: S101 - the constructor was told so
        values = np.ascontiguousarray(values)
        outside = np.empty(len(values), dtype=np.bool_)
        _kernel(values.ctypes.data, len(values), self._width, *self._tables, outside.ctypes.data)
        return outside

    def _add_by_numpy(self, values: protocol.Array) -> protocol.Array:
        width = self._width
        self._missing[:width] += np.isnan(values).sum(axis=0)
        for i, edges in enumerate(self._edges[:, :width]):
            self._above[i, :width] += (values > edges).sum(axis=0)
        outside: protocol.Array = np.any((values <= self._lowest[:width]) | (values > self._highest[:width]), axis=1)
        return outside


def _up_to(multiple: int, number: int) -> int:
    return -(-number // multiple) * multiple
