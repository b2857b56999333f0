"""Counts live rows and answers over the bins of the profile.

Counting row by row would cost more than a linear model's prediction. So batches are
only remembered, and counted together when a block is full or when somebody asks: the
cost a row is then a fraction of a microsecond for each feature's dozen of comparisons.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kedge_server import counting, decoding, profiles, protocol
from kedge_server.signature import Signature

# Rows that are counted together. Fewer cost more each, more cost no less, and the requests behind a block wait for it.
BLOCK_ROWS = 256

OTHER_FEATURES = "__other__"
# Characters of strings that wait for a block to be full; a request can bring megabytes of them in one row.
_MOST_PENDING_CHARS = 1 << 20
# Where the counts of a feature of strings are, from the end.
_NEW, _MISSING = -2, -1


@dataclasses.dataclass(frozen=True)
class _Shown:
    """One feature, or all those without bins of their own.

    Attributes:
        name: What metrics call it.
        features: The bins of each.
        unknown: Positions of features of which an older package says nothing: only what is missing can be counted.
    """

    name: str
    features: Sequence[profiles.Bins]
    unknown: Sequence[int] = ()

    @functools.cached_property
    def labels(self) -> dict[str, str]:
        return {"feature": self.name}

    @functools.cached_property
    def numbers(self) -> list[profiles.Bins]:
        return [bins for bins in self.features if bins.numeric]

    @functools.cached_property
    def strings(self) -> list[profiles.Bins]:
        return [bins for bins in self.features if not bins.numeric]


class Quality:
    """Counters of one model's inputs and outputs.

    Args:
        profile: The bins, and the reference's counts in them. Features beyond those that have some of their own
            are counted together, as `__other__`.
        signature: Where each feature is in a row.
    """

    def __init__(self, profile: profiles.Profile, signature: Signature) -> None:
        self._profile = profile
        names = [column.name for column in signature.columns]
        self._width = len(names)
        self._position = {name: i for i, name in enumerate(names)}
        known = {bins.name: bins for bins in (*profile.features, *profile.further)}
        self._categorical = [bins for bins in known.values() if not bins.numeric]
        self._numeric = [bins for bins in known.values() if bins.numeric]
        self._unknown = [i for i, name in enumerate(names) if name not in known]
        self._shown = [_Shown(bins.name, [bins]) for bins in profile.features]
        if len(names) > len(profile.features):
            self._shown.append(_Shown(OTHER_FEATURES, profile.further, self._unknown))
        self._counter = counting.Counter([b if (b := known.get(name)) and b.numeric else None for name in names])
        self._lock = threading.Lock()
        self._pending: list[tuple[protocol.Rows, list[protocol.Output]]] = []
        self._pending_rows = self._pending_chars = 0
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
            if self._pending_rows < BLOCK_ROWS:
                self._pending_chars += _chars(rows)
            if self._pending_rows >= BLOCK_ROWS or self._pending_chars >= _MOST_PENDING_CHARS:
                self._flush()

    def families(self) -> Iterator[tuple[str, str, str, list[tuple[dict[str, str], int]]]]:
        """Yields (name, type, help, samples) of each metric family, everything counted."""
        with self._lock:
            self._flush()
            features = self._feature_counts()
            outputs = {name: counts.copy() for name, counts in self._label_outputs.items()}
            outputs.update((name, counter.counts(0)) for name, counter in self._number_outputs.items())
            missing = [(shown.labels, self._missing(shown)) for shown in self._shown]
            outside = [(s.labels, self._counter.outside(self._positions(s.numbers))) for s in self._shown if s.numbers]
            new = [(shown.labels, self._strings(shown, _NEW)) for shown in self._shown if shown.strings]
            invalid = self._invalid_rows
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
        yield "kedge_server_feature_missing_total", "counter", "Rows that lack a feature's value.", missing
        yield (
            "kedge_server_feature_out_of_range_total",
            "counter",
            "Rows with a number below or above all of the reference.",
            outside,
        )
        yield (
            "kedge_server_feature_new_category_total",
            "counter",
            "Rows with a category that the reference does not have.",
            new,
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

    def _missing(self, shown: _Shown) -> int:
        numbers = self._counter.missing([*self._positions(shown.numbers), *shown.unknown])
        return numbers + self._strings(shown, _MISSING)

    def _positions(self, features: Sequence[profiles.Bins]) -> list[int]:
        return [self._position[bins.name] for bins in features]

    def _strings(self, shown: _Shown, place: int) -> int:
        return sum(int(self._counts[bins.name][place]) for bins in shown.strings)

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        self._pending_rows = self._pending_chars = 0
        rows = [rows for rows, _ in pending]
        whole = _whole(rows, self._width)
        invalid = self._counter.add(self._numbers(rows) if whole is None else whole)
        for bins in self._categorical:
            positions = profiles.place(bins, _column(rows, self._position[bins.name]))
            self._counts[bins.name] += np.bincount(positions, minlength=len(bins.labels))
            invalid |= positions == len(bins.labels) + _NEW
        self._invalid_rows += int(invalid.sum())
        self._count_outputs([output for _, outputs in pending for output in outputs])

    def _numbers(self, rows: Sequence[protocol.Rows]) -> protocol.Array:
        """Returns all rows as float64 (n_rows, n_features), where what is no number is only missing or not."""
        numbers = np.zeros((sum(r.count for r in rows), self._width))
        for position in self._positions(self._numeric):
            numbers[:, position] = profiles.as_numbers(_column(rows, position))
        for position in self._unknown:
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


def _chars(rows: protocol.Rows) -> int:
    """Returns how many characters the strings of some rows have."""
    if rows.numeric:
        return 0
    columns = rows.columns if rows.matrix is None else (rows.matrix.reshape(-1),)
    return sum(len(v) for values in columns or () if values.dtype == object for v in values if isinstance(v, str))


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
