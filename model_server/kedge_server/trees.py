"""Proves that trees cannot read outside their own memory, nor their ensembles write there.

skops does not trust `sklearn.tree._tree.Tree` nor the `TreePredictor` of histogram
gradient boosting, with reason: scikit-learn follows their node indices without bounds
checks, so a crafted file could crash the process or read foreign memory
(https://github.com/scikit-learn/scikit-learn/pull/34558). Forests are what people
serve most, so instead of asking every user to wave the types through, the server
checks what scikit-learn does not: each child lies after its parent and inside the
array, each feature index inside the rows that the estimator admits, and each tree's
output inside the array that its ensemble adds to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree._tree import Tree

from kedge_server.bounds import UnsoundModelError, require, width

TYPES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)

_LEAF = -1
# A set of categories is 256 bits.
_BITSET_WORDS = 8


def is_tree(item: Any) -> bool:
    """Tells whether `item` is of the types that are trusted only because they are checked here."""
    return isinstance(item, (Tree, TreePredictor))


def proved(estimator: Any) -> list[Any]:
    """Checks the trees that an estimator walks itself, and returns them.

    Raises:
        UnsoundModelError: A node's child, feature or bitset index is out of range.
    """
    tree = vars(estimator).get("tree_")
    if isinstance(tree, Tree):
        _check_tree(tree, width(estimator))
        return [tree]
    if "_predictors" in vars(estimator):
        predictors = [tree for round_ in estimator._predictors for tree in round_]  # noqa: SLF001
        for predictor in predictors:
            _check_predictor(predictor, width(estimator), estimator._bin_mapper)  # noqa: SLF001
        return predictors
    return []


def check_members(ensemble: Any) -> None:
    """Checks that a forest or a bag hands its trees rows as wide as they expect.

    It calls its members without their own validation. Bagging (IsolationForest too)
    may hand each member its own choice of columns; those are taken with numpy, which
    checks them.
    """
    if "estimators_" not in vars(ensemble):
        return
    given = width(ensemble)
    chosen = vars(ensemble).get("estimators_features_")
    for position, member in enumerate(_flat(ensemble.estimators_)):
        if vars(member).get("tree_") is None:
            continue
        columns = given if chosen is None else len(chosen[position])
        # IsolationForest compares numbers of columns to decide whether it chooses at all.
        if width(member) != columns or columns > given:
            raise UnsoundModelError(
                f"member {position} of {type(ensemble).__name__} expects trees over"
                f" {width(member)} features and would be given {columns} of {given}"
            )


def check_boosting(model: Any) -> None:
    """Checks that gradient boosting adds each tree's one output to a column that is there."""
    if "estimators_" not in vars(model):
        return
    rounds = model.estimators_
    require(isinstance(rounds, np.ndarray) and rounds.ndim == 2, model, "estimators_", "is not a table of trees")
    check_members(model)
    for member in rounds.flat:
        outputs = member.tree_.value.shape[1:]
        require(outputs == (1, 1), model, "estimators_", f"holds a tree whose leaves are {outputs} and not one number")
    # What the first round is added to comes from `init_`, which may be any estimator.
    rows = model._raw_predict_init(np.zeros((2, width(model)), dtype=np.float32))  # noqa: SLF001
    require(
        rows.shape == (2, rounds.shape[1]),
        model,
        "estimators_",
        f"has {rounds.shape[1]} trees a round, which would be added to {rows.shape[1:]} scores of a row",
    )


def check_histogram(model: Any) -> None:
    """Checks that the encoder before histogram gradient boosting gives rows as wide as the trees expect."""
    if vars(model).get("_preprocessor") is None or "_predictors" not in vars(model):
        return
    # It refuses what is not of a category's kind, so a row is made of what it knows.
    row = np.zeros(width(model), dtype=object)
    categories = model._preprocessor.named_transformers_["encoder"].categories_  # noqa: SLF001
    row[np.flatnonzero(model.is_categorical_)] = [known[0] for known in categories]
    rows = model._preprocess_X(np.stack((row, row)), reset=False)  # noqa: SLF001
    require(rows.shape == (2, width(model)), model, "_preprocessor", f"makes rows of {rows.shape[1:]} columns")


def _flat(members: Iterable[Any]) -> Iterator[Any]:
    return iter(members.flat) if isinstance(members, np.ndarray) else iter(members)


def _check_tree(tree: Any, n_features: int) -> None:
    if tree.n_features != n_features:
        raise UnsoundModelError(f"a tree over {tree.n_features} features would be given {n_features}")
    left, right = tree.children_left, tree.children_right
    inner = left != _LEAF
    _check_children(left, right, inner)
    _check_range("feature", tree.feature[inner], n_features)


def _check_predictor(predictor: Any, n_features: int, mapper: Any) -> None:
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    _check_children(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), inner)
    features = nodes["feature_idx"].astype(np.int64)
    _check_range("feature", features[inner], n_features)
    categorical = inner & (nodes["is_categorical"] != 0)
    if not categorical.any():
        return
    bitsets = predictor.raw_left_cat_bitsets
    require(
        bitsets.ndim == 2 and bitsets.shape[1] == _BITSET_WORDS, predictor, "raw_left_cat_bitsets", "is no set of bits"
    )
    _check_range("bitset", nodes["bitset_idx"][categorical].astype(np.int64), len(bitsets))
    # By this one it looks up where a feature's known categories are.
    known = mapper.is_categorical_
    require(
        isinstance(mapper, _BinMapper) and known.shape == (n_features,) and known[features[categorical]].all(),
        mapper,
        "is_categorical_",
        "has not the features by whose categories a tree decides",
    )


def _check_children(left: NDArray[Any], right: NDArray[Any], inner: NDArray[Any]) -> None:
    """A child after its parent and inside the array also proves that every walk ends."""
    if not len(left):
        raise UnsoundModelError("a tree has no nodes")
    index = np.flatnonzero(inner)
    for child in (left[index], right[index]):
        if np.any(child <= index) or np.any(child >= len(left)):
            raise UnsoundModelError("a tree's node points outside the tree or back to its parents")


def _check_range(what: str, values: NDArray[Any], end: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= end):
        raise UnsoundModelError(f"a tree's node uses {what} {int(values.max())} of {end}")
