"""Turns a fitted estimator into plain numpy that gives the same answers.

Almost all of a one-row call to scikit-learn is validation and dispatch. What is left
when they are taken away is written out here for the estimators that people serve
most: the same operations on the same numbers in the same order, so that an answer is
the same to the last bit, and not an approximation in another number format.

A function made here answers for rows in which it can be sure of that, and returns None
for others: numbers that are missing or infinite, or that overflow on the way. Those
rows go to scikit-learn, so whatever it refuses it still refuses, in its own words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special

from kedge_server import forests
from kedge_server.protocol import Array
from kedge_server.signature import Layout, Signature

# Takes float64 rows (n_rows, n_features), which it does not change; None when not sure.
Function = Callable[[Array], Array | None]
_Step = Callable[[Array], Array]
# Scores of rows: (n_rows,), or (n_rows, n_outputs).
_Scores = Callable[[Array], Array | None]


class NotCompilableError(ValueError):
    """Nothing here knows the estimator; the message names the part that it lacks."""


def compiled(estimator: Any, signature: Signature) -> dict[str, Function]:
    """Returns those methods of `estimator` that can be compiled, by name.

    Raises:
        NotCompilableError: There are none.
    """
    if signature.layout is not Layout.MATRIX or not signature.numeric:
        raise NotCompilableError("its rows are not all numbers in one array")
    try:
        steps, last = _parts(estimator)
        functions = {name: _after(steps, f) for name, f in _final(last).items() if name in signature.methods}
    except forests.TooLargeError as exc:
        raise NotCompilableError(str(exc)) from exc
    if not functions:
        raise NotCompilableError(f"no method of {type(estimator).__name__} is known")
    return functions


def _name(estimator: Any) -> str:
    """Names a class of scikit-learn itself; a subclass may do anything."""
    return type(estimator).__name__ if type(estimator).__module__.startswith("sklearn.") else ""


def _parts(estimator: Any) -> tuple[list[_Step], Any]:
    """Returns the transformations before the last step, and that step."""
    if _name(estimator) in ("GridSearchCV", "RandomizedSearchCV"):
        return _parts(estimator.best_estimator_)
    if _name(estimator) != "Pipeline":
        return [], estimator
    stages = [stage for _, stage in estimator.steps if stage not in (None, "passthrough")]
    if not stages:
        raise NotCompilableError("its pipeline has no steps")
    steps: list[_Step] = []
    for stage in stages[:-1]:
        steps.extend(_transformation(stage))
    inner, last = _parts(stages[-1])
    return steps + inner, last


def _after(steps: Sequence[_Step], function: Function) -> Function:
    if not steps:
        return function

    def call(rows: Array) -> Array | None:
        for step in steps:
            # scikit-learn looks before each step: what a number that grew too large would
            # turn into may be dropped or clipped by a later one.
            if not isinstance(step, _Imputer) and not plain(rows):
                return None
            rows = step(rows)
        return function(rows)

    return call


def plain(numbers: Array) -> bool:
    """Tells whether all numbers are finite; of enormous ones it may say no."""
    return math.isfinite(np.add.reduce(numbers, axis=None, dtype=np.float64))


def _transformation(stage: Any) -> list[_Step]:
    builder = _TRANSFORMATIONS.get(_name(stage))
    if builder is None:
        raise NotCompilableError(f"{type(stage).__name__} is not known")
    return [builder(stage)]


def _standard_scaler(stage: Any) -> _Step:
    return _shift_and_divide(stage.mean_ if stage.with_mean else None, stage.scale_ if stage.with_std else None)


def _robust_scaler(stage: Any) -> _Step:
    return _shift_and_divide(
        stage.center_ if stage.with_centering else None, stage.scale_ if stage.with_scaling else None
    )


def _shift_and_divide(shift: Array | None, scale: Array | None) -> _Step:
    def both(rows: Array) -> Array:
        rows = rows - shift
        rows /= scale
        return rows

    if shift is not None and scale is not None:
        return both
    if shift is not None:
        return lambda rows: rows - shift
    return (lambda rows: rows) if scale is None else (lambda rows: rows / scale)


def _min_max_scaler(stage: Any) -> _Step:
    scale, least = stage.scale_, stage.min_
    low, high = stage.feature_range if stage.clip else (-np.inf, np.inf)

    def step(rows: Array) -> Array:
        rows = rows * scale
        rows += least
        return np.clip(rows, low, high, out=rows) if stage.clip else rows

    return step


def _max_abs_scaler(stage: Any) -> _Step:
    if getattr(stage, "clip", False):
        raise NotCompilableError("MaxAbsScaler with clip is not known")
    return _shift_and_divide(None, stage.scale_)


def _pca(stage: Any) -> _Step:
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


def _selector(stage: Any) -> _Step:
    chosen = stage.get_support()
    # As scikit-learn does: the memory order of the result decides how a product with it rounds.
    return lambda rows: rows[:, chosen]


class _Imputer:
    """Puts the learnt value where one is missing; the one step that NaN may enter."""

    def __init__(self, stage: Any) -> None:
        values = np.asarray(stage.statistics_)
        missing = stage.missing_values
        usual = values.dtype.kind == "f" and not stage.add_indicator and isinstance(missing, float)
        if not usual or not math.isnan(missing) or np.isnan(values).any():
            raise NotCompilableError("SimpleImputer is known for numbers, NaN and features that have values only")
        self._values = values

    def __call__(self, rows: Array) -> Array:
        return np.where(np.isnan(rows), self._values, rows)


_TRANSFORMATIONS: dict[str, Callable[[Any], _Step]] = {
    "StandardScaler": _standard_scaler,
    "RobustScaler": _robust_scaler,
    "MinMaxScaler": _min_max_scaler,
    "MaxAbsScaler": _max_abs_scaler,
    "PCA": _pca,
    "SelectKBest": _selector,
    "SelectPercentile": _selector,
    "VarianceThreshold": _selector,
    "SimpleImputer": _Imputer,
}

_LINEAR_CLASSIFIERS = (
    "LinearSVC",
    "LogisticRegression",
    "LogisticRegressionCV",
    "Perceptron",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
)
_LINEAR_REGRESSORS = (
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lasso",
    "LassoCV",
    "LinearRegression",
    "LinearSVR",
    "Ridge",
    "RidgeCV",
)
_FORESTS = ("ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor")
_TREES = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")


def _final(last: Any) -> Mapping[str, Function]:
    name = _name(last)
    if name in _LINEAR_CLASSIFIERS:
        return _linear_classifier(last)
    if name in _LINEAR_REGRESSORS or name == "SGDRegressor":
        return {"predict": _linear_scores(last)}
    if name in _FORESTS or name in _TREES:
        return _forest(last)
    if name in ("GradientBoostingClassifier", "GradientBoostingRegressor"):
        return _boosting(last, _gradient_boosting_scores(last))
    if name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        return _boosting(last, _histogram_scores(last))
    raise NotCompilableError(f"{type(last).__name__} is not known")


def _linear_scores(model: Any) -> _Scores:
    coefficients = model.coef_.T
    intercept = model.intercept_
    flat = _name(model) == "SGDRegressor" or (hasattr(model, "classes_") and len(np.atleast_2d(model.coef_)) == 1)

    def scores(rows: Array) -> Array | None:
        if not plain(rows):
            return None
        found: Array = rows @ coefficients
        found += intercept
        return found.reshape(-1) if flat else found

    return scores


def _linear_classifier(model: Any) -> dict[str, Function]:
    binarizer = getattr(model, "_label_binarizer", None)
    if binarizer is not None and binarizer.y_type_.startswith("multilabel"):
        raise NotCompilableError("more than one output is not known")
    scores = _linear_scores(model)
    functions: dict[str, Function] = {"decision_function": scores}
    functions["predict"] = _labels(model.classes_, scores)
    if _name(model) in ("LogisticRegression", "LogisticRegressionCV"):
        functions["predict_proba"] = _binary(scores) if len(model.classes_) <= 2 else _softmax(scores)
    elif _name(model) == "SGDClassifier" and model.loss == "log_loss" and len(model.classes_) == 2:
        functions["predict_proba"] = _binary(scores)
    return functions


def _labels(classes: Array, scores: _Scores, positive: Callable[[Array, float], Array] = np.greater) -> Function:
    """Returns the class of the highest score; of one score, its sign's."""

    def predict(rows: Array) -> Array | None:
        found = scores(rows)
        if found is None:
            return None
        chosen = positive(found, 0.0).astype(np.intp) if found.ndim == 1 else found.argmax(axis=1)
        return classes.take(chosen)

    return predict


def _binary(scores: _Scores) -> Function:
    def predict_proba(rows: Array) -> Array | None:
        found = scores(rows)
        if found is None:
            return None
        found = scipy.special.expit(found, out=found)
        return np.stack([1 - found, found], axis=1)

    return predict_proba


def _softmax(scores: _Scores) -> Function:
    def predict_proba(rows: Array) -> Array | None:
        found = scores(rows)
        if found is None:
            return None
        found -= np.maximum.reduce(found, axis=1, keepdims=True)
        np.exp(found, out=found)
        found /= np.add.reduce(found, axis=1, keepdims=True)
        return found

    return predict_proba


def _single_precision(rows: Array, width: int) -> Array | None:
    """Returns the rows as scikit-learn's trees see them, if they are finite there.

    A tree follows its features unchecked, so rows of another width than the `width`
    that it was trained on are not for it.
    """
    if rows.shape[1] != width:
        return None
    narrow = np.ascontiguousarray(rows, dtype=np.float32)
    return narrow if plain(narrow) else None


def _forest(model: Any) -> dict[str, Function]:
    if model.n_outputs_ != 1:
        raise NotCompilableError("more than one output is not known")
    means = _tree_values(model.tree_) if _name(model) in _TREES else _forest_means(model)
    if not hasattr(model, "classes_"):
        return {"predict": lambda rows: None if (found := means(rows)) is None else found[:, 0]}
    return {"predict_proba": means, "predict": _highest(model.classes_, means)}


def _tree_values(tree: Any) -> _Scores:
    """One tree alone is walked quickest by scikit-learn's own compiled code."""

    def values(rows: Array) -> Array | None:
        narrow = _single_precision(rows, tree.n_features)
        return None if narrow is None else np.asarray(tree.predict(narrow))

    return values


def _forest_means(model: Any) -> _Scores:
    trees = forests.Trees([forests.of_decision_tree(member) for member in model.estimators_])
    count, width = len(model.estimators_), model.n_features_in_

    def means(rows: Array) -> Array | None:
        narrow = _single_precision(rows, width)
        if narrow is None:
            return None
        found = trees.sums(narrow)
        found /= count
        return found

    return means


def _highest(classes: Array, scores: _Scores) -> Function:
    def predict(rows: Array) -> Array | None:
        found = scores(rows)
        return None if found is None else classes.take(found.argmax(axis=1))

    return predict


def _gradient_boosting_scores(model: Any) -> _Scores:
    init = model.init_
    if not isinstance(init, str) and _name(init) not in ("DummyClassifier", "DummyRegressor"):
        raise NotCompilableError("gradient boosting that starts from another model is not known")
    # Such a start is the same for all rows.
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0]  # noqa: SLF001
    rounds = model.estimators_
    trees = forests.Trees([forests.of_decision_tree(member, model.learning_rate) for member in rounds.flat])

    def scores(rows: Array) -> Array | None:
        narrow = _single_precision(rows, model.n_features_in_)
        return None if narrow is None else trees.sums(narrow, start, rounds.shape[1])

    return scores


def _histogram_scores(model: Any) -> _Scores:
    if model.is_categorical_ is not None:
        raise NotCompilableError("histogram gradient boosting over categories is not known")
    rounds = model._predictors  # noqa: SLF001 - it has no public name
    start = model._baseline_prediction[0]  # noqa: SLF001
    width = model.n_features_in_
    trees = forests.Trees([forests.of_predictor(tree.nodes, width) for round_ in rounds for tree in round_])

    def scores(rows: Array) -> Array | None:
        if rows.shape[1] != width:
            return None
        if plain(rows):
            return _sums(np.concatenate((rows, rows), axis=1))
        missing = np.isnan(rows)
        if np.isinf(rows).any():
            return None
        both = np.concatenate((np.where(missing, -np.inf, rows), np.where(missing, np.inf, rows)), axis=1)
        return _sums(both)

    def _sums(both: Array) -> Array:
        # In scikit-learn's memory order, in which its softmax adds.
        return np.asfortranarray(trees.sums(both, start, len(rounds[0])))

    return scores


def _boosting(model: Any, raw: _Scores) -> dict[str, Function]:
    """Returns the methods over `raw` scores (n_rows, n_trees_a_round)."""
    loss = model._loss  # noqa: SLF001 - the link function, which has no public name

    def over(function: Callable[[Array], Array]) -> Function:
        def call(rows: Array) -> Array | None:
            found = raw(rows)
            return None if found is None else function(found)

        return call

    def flat(found: Array) -> Array:
        return found.reshape(-1) if found.shape[1] == 1 else found

    histogram = _name(model).startswith("Hist")
    if not hasattr(model, "classes_"):
        inverse = loss.link.inverse if histogram else (lambda found: found)
        return {"predict": over(lambda found: inverse(found.reshape(-1)))}
    scores = over(flat)
    return {
        "decision_function": scores,
        "predict_proba": over(loss.predict_proba),
        "predict": _labels(model.classes_, scores, positive=np.greater if histogram else np.greater_equal),
    }
