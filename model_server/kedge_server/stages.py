"""The transformations before a model, as plain functions of numbers.

Each does what scikit-learn's `transform` does once it has validated its input, in the
same order and on arrays in the same memory order, so that it rounds alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kedge_server.protocol import Array

# Takes float64 rows (n_rows, n_features), which it does not change.
Step = Callable[[Array], Array]


class NotCompilableError(ValueError):
    """Nothing here knows the estimator; the message names the part that it lacks."""


def name_of(estimator: Any) -> str:
    """Names a class of scikit-learn itself; a subclass may do anything."""
    return type(estimator).__name__ if type(estimator).__module__.startswith("sklearn.") else ""


def plain(numbers: Array) -> bool:
    """Tells whether all numbers are finite; of enormous ones it may say no."""
    return math.isfinite(np.add.reduce(numbers, axis=None, dtype=np.float64))


def transformation(stage: Any) -> Step:
    """Returns a fitted transformer as a step.

    Raises:
        NotCompilableError: Nothing here knows it.
    """
    builder = _TRANSFORMATIONS.get(name_of(stage))
    if builder is None:
        raise NotCompilableError(f"{type(stage).__name__} is not known")
    return builder(stage)


def _standard_scaler(stage: Any) -> Step:
    return _shift_and_divide(stage.mean_ if stage.with_mean else None, stage.scale_ if stage.with_std else None)


def _robust_scaler(stage: Any) -> Step:
    return _shift_and_divide(
        stage.center_ if stage.with_centering else None, stage.scale_ if stage.with_scaling else None
    )


def _shift_and_divide(shift: Array | None, scale: Array | None) -> Step:
    def both(rows: Array) -> Array:
        rows = rows - shift
        rows /= scale
        return rows

    if shift is not None and scale is not None:
        return both
    if shift is not None:
        return lambda rows: rows - shift
    return (lambda rows: rows) if scale is None else (lambda rows: rows / scale)


def _min_max_scaler(stage: Any) -> Step:
    scale, least = stage.scale_, stage.min_
    low, high = stage.feature_range if stage.clip else (-np.inf, np.inf)

    def step(rows: Array) -> Array:
        rows = rows * scale
        rows += least
        return np.clip(rows, low, high, out=rows) if stage.clip else rows

    return step


def _max_abs_scaler(stage: Any) -> Step:
    if getattr(stage, "clip", False):
        raise NotCompilableError("MaxAbsScaler with clip is not known")
    return _shift_and_divide(None, stage.scale_)


def _pca(stage: Any) -> Step:
    projection = stage.components_.T
    centre = stage.mean_.reshape(1, -1) @ projection
    scale = np.sqrt(stage.explained_variance_)
    scale[scale < np.finfo(scale.dtype).eps] = np.finfo(scale.dtype).eps

    def step(rows: Array) -> Array:
        rows = rows @ projection
        rows -= centre
        if stage.whiten:
            rows /= scale
        return rows

    return step


def _selector(stage: Any) -> Step:
    chosen = stage.get_support()
    # As scikit-learn does: the memory order of the result decides how a product with it rounds.
    return lambda rows: rows[:, chosen]


class Imputer:
    """Puts the learnt value where one is missing; the one step that NaN may enter."""

    def __init__(self, stage: Any) -> None:
        values = np.asarray(stage.statistics_)
        missing = stage.missing_values
        usual = values.dtype.kind == "f" and not stage.add_indicator and isinstance(missing, float)
        if not usual or not math.isnan(missing) or np.isnan(values).any():
            raise NotCompilableError("SimpleImputer is known for numbers, NaN and features that have values only")
        self._values = values

    def __call__(self, rows: Array) -> Array:
        """Returns `rows` without gaps."""
        return np.where(np.isnan(rows), self._values, rows)


_TRANSFORMATIONS: dict[str, Callable[[Any], Step]] = {
    "StandardScaler": _standard_scaler,
    "RobustScaler": _robust_scaler,
    "MinMaxScaler": _min_max_scaler,
    "MaxAbsScaler": _max_abs_scaler,
    "PCA": _pca,
    "SelectKBest": _selector,
    "SelectPercentile": _selector,
    "VarianceThreshold": _selector,
    "SimpleImputer": Imputer,
}
