"""Runs the estimator over the rows of several requests at once. For one thread at a time.

A request must not be answered otherwise because of its neighbours in a batch: when a
batch fails, each of its requests is run alone and only those that fail alone fail.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kedge_server import decoding, protocol, spot_checks
from kedge_server.errors import ClientError, ModelError, RequestError
from kedge_server.signature import Kind, Layout, Signature

_log = logging.getLogger(__name__)

_MAX_WHERE_CHARS = 4000

# A sparse result, which a text's few words make of a million columns, is dense in an answer. So many values are 64 MiB,
# which an answer holds a few times over until it is sent.
MAX_DENSE_VALUES = 1 << 23

# In what an encoder says of the categories that it does not know: a missing value is one of them.
_UNKNOWN_MISSING = re.compile(r"[\[ ](nan|None)[,\]]")

# Outcome of one request: its outputs in the order asked for, or why there are none.
Outcome = list[protocol.Output] | RequestError
Observer = Callable[[protocol.Rows, list[protocol.Output]], None]


class Predictor:
    """Predicts batches with one fitted estimator.

    Args:
        estimator: A fitted scikit-learn estimator.
        signature: Read off that estimator.
    """

    def __init__(self, estimator: Any, signature: Signature) -> None:
        self._signature = signature
        # None as long as nobody has asked for compiling.
        self.compiled: spot_checks.Compiled | None = None
        self._names = [column.name for column in signature.columns]
        self._call: dict[str, Callable[[Any], Any]] = {name: getattr(estimator, name) for name in signature.methods}
        self._is_frame = signature.layout is Layout.FRAME
        self._nones = signature.nones
        # Told the rows of each prediction and its outputs, of which there are none when it failed.
        self.observer: Observer = _nobody
        # Rows come as an array although the model knows its features' names: the
        # decoder has already put them into the order of training.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def call(self, method: str) -> Callable[[Any], Any]:
        """Returns what answers `method`."""
        return self._call[method]

    def use(self, compiled: spot_checks.Compiled) -> None:
        """Answers by `compiled` from now on, where it can."""
        self.compiled = compiled
        self._call = {name: compiled.around(name, call) for name, call in self._call.items()}

    def run(self, requests: Sequence[protocol.InferRequest]) -> list[Outcome]:
        """Returns one outcome a request, in order. Never raises."""
        if len(requests) == 1:
            return [self._alone(requests[0])]
        outcomes: dict[int, Outcome] = {}
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, request in enumerate(requests):
            groups.setdefault(request.methods, []).append(position)
        for methods, positions in groups.items():
            members = [requests[i] for i in positions]
            outcomes.update(zip(positions, self._together(methods, members), strict=True))
        return [outcomes[i] for i in range(len(requests))]

    def try_out(self, request: protocol.InferRequest) -> list[protocol.Output]:
        """Predicts one request and lets whatever the model raises through."""
        return self._predict(request.methods, [request.rows], bounded=False)

    def _together(self, methods: tuple[str, ...], requests: list[protocol.InferRequest]) -> list[Outcome]:
        if len(requests) == 1:
            return [self._alone(requests[0])]
        try:
            outputs = self._predict(methods, [request.rows for request in requests])
        except Exception:  # noqa: BLE001 - whatever the model raises, each request is tried alone
            return [self._alone(request) for request in requests]
        outcomes: list[Outcome] = []
        start = 0
        for request in requests:
            end = start + request.rows.count
            outcomes.append(request.wanted([(name, array[start:end]) for name, array in outputs]))
            start = end
        return outcomes

    def _alone(self, request: protocol.InferRequest) -> Outcome:
        try:
            return request.wanted(self._predict(request.methods, [request.rows]))
        except Exception as exc:  # noqa: BLE001 - it may be anything, and the server must live on
            self.observer(request.rows, [])
            return self._blame(request.rows, exc)

    def _predict(
        self, methods: tuple[str, ...], rows: list[protocol.Rows], *, bounded: bool = True
    ) -> list[protocol.Output]:
        whole = rows[0] if len(rows) == 1 else self._joined(rows)
        given = self._frame(whole) if self._is_frame else self._matrix(whole.matrix)
        outputs: list[protocol.Output] = []
        for method in methods:
            outputs.extend(tensors_of(method, self._call[method](given), whole.count, bounded=bounded))
        self.observer(whole, outputs)
        return outputs

    def _joined(self, rows: list[protocol.Rows]) -> protocol.Rows:
        count = sum(r.count for r in rows)
        if not self._is_frame:
            return protocol.Rows(count, matrix=np.concatenate([r.matrix for r in rows if r.matrix is not None]))
        columns = [r.columns for r in rows if r.columns is not None]
        return protocol.Rows(count, columns=tuple(np.concatenate(parts) for parts in zip(*columns, strict=True)))

    def _matrix(self, matrix: Any) -> Any:
        """Returns rows with their missing values as the model was trained to see them."""
        if matrix.ndim == 1 or not (self._nones or matrix.dtype == object):
            return matrix
        return np.column_stack([self._known(i, values).astype(object) for i, values in enumerate(matrix.T)])

    def _known(self, position: int, values: protocol.Array) -> protocol.Array:
        """Returns a feature's values (n_rows,) with what is missing as NaN, or as None if that is what training had."""
        if position in self._nones:
            return _with_missing(values.astype(object), None)
        return _with_missing(values, np.nan) if values.dtype == object else values

    def _frame(self, rows: protocol.Rows) -> Any:
        import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415 - half a second that most models need not pay

        columns = [self._known(i, values) for i, values in enumerate(rows.columns or ())]
        return pd.DataFrame(
            {
                name: values if values.dtype != object else pd.Series(values, dtype=self._type_of(i, values))
                for i, (name, values) in enumerate(zip(self._names, columns, strict=True))
            }
        )

    def _type_of(self, position: int, values: protocol.Array) -> Any:
        """Returns the type of a frame's column.

        Left to itself, pandas makes another one of a column that lacks every value than of one that lacks some, and
        so an answer would depend on its neighbours.
        """
        import pandas as pd  # noqa: PLC0415 - as above

        is_text = position not in self._nones and pd.api.types.infer_dtype(values) in ("string", "empty")
        return self._text_type if is_text else object

    @functools.cached_property
    def _text_type(self) -> Any:
        """Returns what pandas makes of strings, which is not the same in its versions."""
        import pandas as pd  # noqa: PLC0415 - as above

        return pd.Series([""]).dtype

    def _blame(self, rows: protocol.Rows, exc: Exception) -> RequestError:
        """Tells the client's mistake from the model's after the model raised.

        scikit-learn refuses numbers that are not finite or do not fit its float32, and
        strings where it needs numbers; only the client can have sent those. Everything
        else is the model's doing, such as an encoder that never saw a category.
        """
        if isinstance(exc, RequestError):
            return exc
        if isinstance(exc, ValueError) and (what := self._unfit(rows, str(exc))) is not None:
            return ClientError(what)
        # The message goes to the client alone, since it may quote a row.
        where = "".join(traceback.format_tb(exc.__traceback__))
        _log.error("the model raised", extra={"error_type": type(exc).__name__, "traceback": where[-_MAX_WHERE_CHARS:]})
        return ModelError(f"the model raised {type(exc).__name__}: {' '.join(str(exc).split())[:300]}")

    def _unfit(self, rows: protocol.Rows, said: str) -> str | None:
        """Returns what in the rows can have made the model raise a ValueError that `said` so."""
        if rows.matrix is not None and rows.matrix.ndim != 2:
            return None
        columns = list(rows.matrix.T) if rows.matrix is not None else rows.columns or ()
        if "could not convert string to float" in said:
            return next((what for i, v in enumerate(columns) if (what := self._not_a_number(i, v))), None)
        if "unknown categories" not in said or _UNKNOWN_MISSING.search(said):
            lacking = [self._name(i) for i, v in enumerate(columns) if self._lacks(i, v)]
            if len(lacking) == 1:
                return f"feature {lacking[0]} lacks a value (null or NaN), which this model does not admit"
            if lacking:
                return (
                    f"features {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''} lack values (null or NaN),"
                    " and there is one among them where this model does not admit it"
                )
        for i, values in enumerate(columns):
            numbers = np.array([v for v in values.tolist() if isinstance(v, (int, float))])
            if (np.abs(numbers) > np.finfo(np.float32).max).any():
                return f"feature {self._name(i)} holds a number that is too large for this model"
        return None

    def _name(self, position: int) -> str:
        return f'"{self._names[position] if self._names else f"x{position}"}"'

    def _lacks(self, position: int, values: protocol.Array) -> bool:
        """Tells whether a feature lacks a value where it is not known that it may."""
        columns = self._signature.columns
        return not (columns and columns[position].allow_missing) and bool(decoding.is_missing(values).any())

    def _not_a_number(self, position: int, values: protocol.Array) -> str | None:
        columns = self._signature.columns
        if values.dtype == object and not (columns and columns[position].kind is Kind.STRING):
            for value in values.tolist():
                if isinstance(value, str) and not _is_number(value):
                    return f'feature {self._name(position)} holds "{value[:60]}", and this model needs a number there'
        return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_missing(values: protocol.Array, form: float | None) -> protocol.Array:
    known = values.copy()
    known[decoding.is_missing(values)] = form
    return known


def _nobody(rows: protocol.Rows, outputs: list[protocol.Output]) -> None:
    """Is told of predictions before anybody wants to know."""


def tensors_of(method: str, result: Any, count: int, *, bounded: bool) -> list[protocol.Output]:
    """Returns a method's result as named tensors with the rows first.

    A multi-output classifier's `predict_proba` is a list with one array an output;
    they become `predict_proba_0`, `predict_proba_1`, ...
    """
    if isinstance(result, list):
        return [(f"{method}_{i}", _array(part, count, bounded=bounded)) for i, part in enumerate(result)]
    return [(method, _array(result, count, bounded=bounded))]


def _array(result: Any, count: int, *, bounded: bool) -> protocol.Array:
    if hasattr(result, "toarray"):
        size = math.prod(result.shape)
        if bounded and size > MAX_DENSE_VALUES:
            raise ClientError(
                f"the answer has {size} values, {result.shape[1]} for each row; at most {MAX_DENSE_VALUES} are given"
                " in one answer: send fewer rows",
                413,
            )
        result = result.toarray()
    array = np.asarray(result)
    if array.ndim == 0 or len(array) != count:
        raise ValueError(f"the model gave {array.shape} for {count} rows")
    return array
