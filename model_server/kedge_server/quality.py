"""Counts live rows and answers over the bins of the profile.

Counting row by row would cost more than a linear model's prediction. So batches are
only remembered, and counted together when a block is full or when somebody asks: the
cost a row is then a fraction of a microsecond for each feature's dozen of comparisons.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kedge_server import profiles, protocol
from kedge_server.signature import Signature

# Rows that are counted together. Fewer cost more each; more cost no less, and the
# requests behind a block wait for it: 1024 rows of 64 numbers took 2 to 4 ms.
BLOCK_ROWS = 256
# Room for every bin of a feature; the last is for missing values.
_SLOTS = 13
_MISSING_SLOT = _SLOTS - 1

OTHER_FEATURES = "__other__"


class Quality:
    """Counters of one model's inputs and outputs.

    Args:
        profile: The bins, and the reference's counts in them.
        signature: Where each feature is in a row.
    """

    def __init__(self, profile: profiles.Profile, signature: Signature) -> None:
        self._profile = profile
        names = [column.name for column in signature.columns]
        self._position = {bins.name: names.index(bins.name) for bins in profile.features}
        self._rest = [i for i, name in enumerate(names) if name not in self._position]
        self._numeric = [bins for bins in profile.features if bins.numeric]
        self._categorical = [bins for bins in profile.features if not bins.numeric]
        self._numeric_at = [self._position[bins.name] for bins in self._numeric]
        self._edges = _padded(self._numeric)
        self._last = np.array([len(bins.edges) for bins in self._numeric])
        self._lock = threading.Lock()
        self._pending: list[tuple[protocol.Rows, list[protocol.Output]]] = []
        self._pending_rows = 0
        self._counts = {bins.name: np.zeros(len(bins.labels), dtype=np.int64) for bins in profile.features}
        self._numeric_counts = np.zeros((len(self._numeric), _SLOTS), dtype=np.int64)
        self._output_counts = {bins.name: np.zeros(len(bins.labels), dtype=np.int64) for bins in profile.outputs}
        self._rest_missing = 0
        self._invalid_rows = 0

    def remember(self, rows: protocol.Rows, outputs: list[protocol.Output]) -> None:
        """Keeps the rows of one prediction and what came of them for counting."""
        with self._lock:
            self._pending.append((rows, outputs))
            self._pending_rows += rows.count
            if self._pending_rows >= BLOCK_ROWS:
                self._flush()

    def families(self) -> Iterator[tuple[str, str, str, list[tuple[dict[str, str], int]]]]:
        """Yields (name, type, help, samples) of each metric family, everything counted."""
        with self._lock:
            self._flush()
            features = {bins.name: self._counts_of(bins) for bins in self._profile.features}
            outputs = {name: counts.copy() for name, counts in self._output_counts.items()}
            rest_missing, invalid = self._rest_missing, self._invalid_rows
        profile = self._profile
        yield (
            "kedge_server_feature_bin_total",
            "counter",
            "Rows by the bin of the training data's profile that a feature's value lies in.",
            _by_bin("feature", profile.features, features),
        )
        yield (
            "kedge_server_feature_reference_rows",
            "gauge",
            "The same count for the reference that the model was packed with.",
            _by_bin("feature", profile.features, {b.name: np.array(b.counts) for b in profile.features}),
        )
        yield (
            "kedge_server_prediction_bin_total",
            "counter",
            "Rows by the bin that the model's answer lies in; of probabilities the highest counts.",
            _by_bin("output", profile.outputs, outputs),
        )
        yield (
            "kedge_server_prediction_reference_rows",
            "gauge",
            "The same count for the reference that the model was packed with.",
            _by_bin("output", profile.outputs, {b.name: np.array(b.counts) for b in profile.outputs}),
        )
        missing = [({"feature": name}, int(counts[-1])) for name, counts in features.items()]
        if self._rest:
            missing.append(({"feature": OTHER_FEATURES}, rest_missing))
        yield "kedge_server_feature_missing_total", "counter", "Rows that lack a feature's value.", missing
        yield (
            "kedge_server_feature_out_of_range_total",
            "counter",
            "Rows with a number below or above all of the reference.",
            [
                ({"feature": b.name}, int(features[b.name][0] + features[b.name][len(b.edges)]))
                for b in profile.features
                if b.numeric
            ],
        )
        yield (
            "kedge_server_feature_new_category_total",
            "counter",
            "Rows with a category that the reference does not have.",
            [({"feature": b.name}, int(features[b.name][-2])) for b in profile.features if not b.numeric],
        )
        yield (
            "kedge_server_invalid_rows_total",
            "counter",
            "Rows with a number out of range or a new category.",
            [({}, invalid)],
        )

    def _counts_of(self, bins: profiles.Bins) -> protocol.Array:
        if not bins.numeric:
            return self._counts[bins.name].copy()
        counts = self._numeric_counts[self._numeric.index(bins)]
        return np.append(counts[: len(bins.edges) + 1], counts[_MISSING_SLOT])

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending, self._pending_rows = self._pending, [], 0
        rows = [rows for rows, _ in pending]
        whole = _whole(rows)
        invalid = np.zeros(sum(r.count for r in rows), dtype=np.bool_)
        if self._numeric:
            self._count_numbers(_numeric_columns(rows, whole, self._numeric_at), invalid)
        for bins in self._categorical:
            positions = profiles.place(bins, _column(rows, self._position[bins.name]))
            self._counts[bins.name] += np.bincount(positions, minlength=len(bins.labels))
            invalid |= positions == len(bins.labels) - 2
        if self._rest and whole is not None:
            self._rest_missing += int(np.isnan(whole.take(self._rest, axis=1)).sum())
        elif self._rest:
            self._rest_missing += sum(int(_missing(_column(rows, i)).sum()) for i in self._rest)
        self._invalid_rows += int(invalid.sum())
        self._count_outputs([output for _, outputs in pending for output in outputs])

    def _count_numbers(self, values: protocol.Array, invalid: protocol.Array) -> None:
        """Counts (n_rows, n_numeric_features) at once and marks rows out of range."""
        # Edge by edge: numpy compares whole blocks quickly, but sums short axes slowly.
        positions = np.zeros(values.shape, dtype=np.int8)
        above = np.empty(values.shape, dtype=np.bool_)
        for edges in self._edges.T:
            np.greater(values, edges, out=above)
            positions += above.view(np.int8)
        outside = (positions == 0) | (positions == self._last)
        missing = np.isnan(values)
        if missing.any():
            outside &= ~missing
            positions[missing] = _MISSING_SLOT
        invalid |= outside.any(axis=1)
        width = len(self._numeric)
        flat = (positions.astype(np.int64) + np.arange(width) * _SLOTS).ravel()
        self._numeric_counts += np.bincount(flat, minlength=width * _SLOTS).reshape(width, _SLOTS)

    def _count_outputs(self, outputs: list[protocol.Output]) -> None:
        for bins in self._profile.outputs:
            arrays = [array for name, array in outputs if name == bins.name]
            if not arrays:
                continue
            self._output_counts[bins.name] += _count_output(bins, np.concatenate(arrays))


def _count_output(bins: profiles.Bins, array: protocol.Array) -> protocol.Array:
    """Counts answers over `bins`; whole numbers are labels, of which there are few."""
    if array.ndim == 1 and array.dtype.kind in "iub" and not bins.numeric:
        labels, times = np.unique(array, return_counts=True)
        found = profiles.place(bins, labels.astype(str).astype(object))
        return np.bincount(found, weights=times, minlength=len(bins.labels)).astype(np.int64)
    values = profiles.scalar(bins.name, array)
    if values is None:
        return np.zeros(len(bins.labels), dtype=np.int64)
    return profiles.count(bins, values)


def _padded(features: Sequence[profiles.Bins]) -> protocol.Array:
    """Returns the edges (n_features, max_edges); nothing lies above the padding."""
    width = max((len(bins.edges) for bins in features), default=0)
    edges = np.full((len(features), width), np.inf)
    for row, bins in zip(edges, features, strict=True):
        row[: len(bins.edges)] = profiles.comparable_edges(bins)
    return edges


def _whole(rows: Sequence[protocol.Rows]) -> protocol.Array | None:
    """Returns all rows as one float64 array (n_rows, n_features), if that is how they came."""
    matrices = [r.matrix for r in rows if r.matrix is not None and r.matrix.dtype != object]
    return np.concatenate(matrices) if len(matrices) == len(rows) else None


def _numeric_columns(
    rows: Sequence[protocol.Rows], whole: protocol.Array | None, positions: list[int]
) -> protocol.Array:
    """Returns the numeric features of all rows as float64 (n_rows, n_positions)."""
    if whole is None:
        return np.column_stack([_numbers(_column(rows, i)) for i in positions])
    # An index would give the columns one after the other, which the comparisons with edges are slow on.
    return whole if positions == list(range(whole.shape[1])) else whole.take(positions, axis=1)


def _column(rows: Sequence[protocol.Rows], position: int) -> protocol.Array:
    parts: list[Any] = [r.matrix[:, position] if r.matrix is not None else (r.columns or ())[position] for r in rows]
    return np.concatenate(parts)


def _numbers(values: protocol.Array) -> protocol.Array:
    if values.dtype != object:
        return values
    return np.array([v if isinstance(v, (int, float)) else np.nan for v in values.tolist()])


def _missing(values: protocol.Array) -> protocol.Array:
    return np.isnan(_numbers(values)) if values.dtype != object else np.array([v is None for v in values.tolist()])


def _by_bin(
    label: str, all_bins: Sequence[profiles.Bins], counts: dict[str, protocol.Array]
) -> list[tuple[dict[str, str], int]]:
    return [
        ({label: bins.name, "bin": name}, int(count))
        for bins in all_bins
        for name, count in zip(bins.labels, counts[bins.name].tolist(), strict=True)
    ]
