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

from kedge_server import counting, decoding, profiles, protocol
from kedge_server.signature import Signature

# Rows that are counted together. Fewer cost more each, more cost no less, and the requests behind a block wait for it.
BLOCK_ROWS = 256

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
        self._width = len(names)
        self._rest = [i for i, name in enumerate(names) if name not in self._position]
        self._categorical = [bins for bins in profile.features if not bins.numeric]
        numeric = {bins.name: bins for bins in profile.features if bins.numeric}
        self._counter = counting.Counter([numeric.get(name) for name in names])
        self._lock = threading.Lock()
        self._pending: list[tuple[protocol.Rows, list[protocol.Output]]] = []
        self._pending_rows = 0
        self._counts = {bins.name: np.zeros(len(bins.labels), dtype=np.int64) for bins in self._categorical}
        self._number_outputs = {bins.name: counting.Counter([bins]) for bins in profile.outputs if bins.numeric}
        self._label_outputs = {
            bins.name: np.zeros(len(bins.labels), dtype=np.int64) for bins in profile.outputs if not bins.numeric
        }
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
            features = self._feature_counts()
            outputs = {name: counts.copy() for name, counts in self._label_outputs.items()}
            outputs.update((name, counter.counts(0)) for name, counter in self._number_outputs.items())
            rest_missing, invalid = self._counter.missing(self._rest), self._invalid_rows
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
                ({"feature": b.name}, int(features[b.name][0] + features[b.name][len(b.edges)]) if b.edges else 0)
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

    def _feature_counts(self) -> dict[str, protocol.Array]:
        return {
            bins.name: self._counter.counts(self._position[bins.name])
            if bins.numeric
            else self._counts[bins.name].copy()
            for bins in self._profile.features
        }

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending, self._pending_rows = self._pending, [], 0
        rows = [rows for rows, _ in pending]
        whole = _whole(rows, self._width)
        invalid = self._counter.add(self._numbers(rows) if whole is None else whole)
        for bins in self._categorical:
            positions = profiles.place(bins, _column(rows, self._position[bins.name]))
            self._counts[bins.name] += np.bincount(positions, minlength=len(bins.labels))
            invalid |= positions == len(bins.labels) - 2
        self._invalid_rows += int(invalid.sum())
        self._count_outputs([output for _, outputs in pending for output in outputs])

    def _numbers(self, rows: Sequence[protocol.Rows]) -> protocol.Array:
        """Returns all rows as float64 (n_rows, n_features), where what is no number is only missing or not."""
        numbers = np.zeros((sum(r.count for r in rows), self._width))
        for bins in self._profile.features:
            if bins.numeric:
                position = self._position[bins.name]
                numbers[:, position] = profiles.as_numbers(_column(rows, position))
        for position in self._rest:
            numbers[decoding.is_missing(_column(rows, position)), position] = np.nan
        return numbers

    def _count_outputs(self, outputs: list[protocol.Output]) -> None:
        for bins in self._profile.outputs:
            arrays = [array for name, array in outputs if name == bins.name]
            if not arrays:
                continue
            array = np.concatenate(arrays)
            if not bins.numeric:
                self._label_outputs[bins.name] += _count_labels(bins, array)
            elif (values := profiles.scalar(bins.name, array)) is not None:
                self._number_outputs[bins.name].add(profiles.as_numbers(values).reshape(-1, 1))


def _count_labels(bins: profiles.Bins, array: protocol.Array) -> protocol.Array:
    """Counts answers over categories; whole numbers are labels, of which there are few."""
    if array.ndim == 1 and array.dtype.kind in "iub":
        labels, times = np.unique(array, return_counts=True)
        found = profiles.place(bins, labels.astype(str).astype(object))
        return np.bincount(found, weights=times, minlength=len(bins.labels)).astype(np.int64)
    values = profiles.scalar(bins.name, array)
    if values is None:
        return np.zeros(len(bins.labels), dtype=np.int64)
    return profiles.count(bins, values)


def _whole(rows: Sequence[protocol.Rows], width: int) -> protocol.Array | None:
    """Returns all rows as float64 (n_rows, width), if that is how they came."""
    matrices = [m for r in rows if (m := r.matrix) is not None and m.dtype != object and m.shape[1:] == (width,)]
    if len(matrices) < len(rows):
        return None
    whole = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
    return whole.astype(np.float64, copy=False)


def _column(rows: Sequence[protocol.Rows], position: int) -> protocol.Array:
    parts: list[Any] = [r.matrix[:, position] if r.matrix is not None else (r.columns or ())[position] for r in rows]
    return np.concatenate(parts)


def _by_bin(
    label: str, all_bins: Sequence[profiles.Bins], counts: dict[str, protocol.Array]
) -> list[tuple[dict[str, str], int]]:
    return [
        ({label: bins.name, "bin": name}, int(count))
        for bins in all_bins
        for name, count in zip(bins.labels, counts[bins.name].tolist(), strict=True)
    ]
