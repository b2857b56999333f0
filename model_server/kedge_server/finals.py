"""The models at the end of a pipeline, as plain functions of numbers.

Each method does what scikit-learn's does once it has validated its input: the same
operations in the same order. Linear models and trees make scores; what the scores mean
(a label, a probability) is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.special

from kedge_server import forests
from kedge_server.protocol import Array
from kedge_server.stages import NotCompilableError, name_of, plain

# Takes float64 rows (n_rows, n_features), which it does not change; None when not sure.
Function = Callable[[Array], Array | None]
# Scores of rows: (n_rows,), or (n_rows, n_outputs).
_Scores = Callable[[Array], Array | None]

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


def methods(last: Any) -> Mapping[str, Function]:
    """Returns the methods of a fitted model that have a compiled form, by name.

    Raises:
        NotCompilableError: There are none.
        TooLargeError: Its trees would need too much memory.
    """
    name = name_of(last)
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
    flat = name_of(model) == "SGDRegressor" or (hasattr(model, "classes_") and len(np.atleast_2d(model.coef_)) == 1)

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
    functions: dict[str, Function] = {"decision_function": scores, "predict": _labels(model.classes_, scores)}
    if name_of(model) in ("LogisticRegression", "LogisticRegressionCV"):
        functions["predict_proba"] = _binary(scores) if len(model.classes_) <= 2 else _softmax(scores)
    elif name_of(model) == "SGDClassifier" and model.loss == "log_loss" and len(model.classes_) == 2:
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
    means = _tree_values(model.tree_) if name_of(model) in _TREES else _forest_means(model)
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
    if not isinstance(init, str) and name_of(init) not in ("DummyClassifier", "DummyRegressor"):
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

    histogram = name_of(model).startswith("Hist")
    if not hasattr(model, "classes_"):
        inverse = loss.link.inverse if histogram else (lambda found: found)
        return {"predict": over(lambda found: inverse(found.reshape(-1)))}
    scores = over(flat)
    return {
        "decision_function": scores,
        "predict_proba": over(loss.predict_proba),
        "predict": _labels(model.classes_, scores, positive=np.greater if histogram else np.greater_equal),
    }
