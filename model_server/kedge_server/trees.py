"""Proves that a loaded tree cannot read outside its own memory.

skops does not trust `sklearn.tree._tree.Tree` nor the `TreePredictor` of histogram
gradient boosting, with reason: scikit-learn follows their node indices without bounds
checks, so a crafted file could crash the process or read foreign memory
(https://github.com/scikit-learn/scikit-learn/pull/34558). Forests are what people
serve most, so instead of asking every user to wave the types through, the server
checks what scikit-learn does not: each child lies after its parent and inside the
array, and each feature index inside the rows that the estimator admits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TREE = "sklearn.tree._tree.Tree"
TREE_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
TYPES = (TREE, TREE_PREDICTOR)

_LEAF = -1


class UnsoundTreeError(ValueError):
    """A tree's node indices point outside what it owns."""


def check(model: Any) -> int:
    """Checks every tree reachable from `model` and returns how many there are.

    Raises:
        UnsoundTreeError: A node's child, feature or bitset index is out of range.
    """
    count = 0
    for tree, n_features in _trees(model):
        if type(tree).__name__ == "Tree":
            _check_tree(tree, n_features)
        else:
            _check_predictor(tree, n_features)
        count += 1
    return count


def _trees(model: Any) -> list[tuple[Any, int]]:
    """Collects (tree, number of features its caller passes) from the object graph."""
    found: list[tuple[Any, int]] = []
    # Something shared by two estimators is walked once for each width of rows.
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[Any, int]] = [(model, 0)]
    while stack:
        item, n_features = stack.pop()
        if isinstance(item, (str, bytes, int, float, type(None))) or (id(item), n_features) in seen:
            continue
        seen.add((id(item), n_features))
        name = f"{type(item).__module__}.{type(item).__qualname__}"
        if name in TYPES:
            found.append((item, n_features))
        elif isinstance(item, dict):
            stack.extend((v, n_features) for v in item.values())
        elif isinstance(item, (list, tuple, set)):
            stack.extend((v, n_features) for v in item)
        elif isinstance(item, np.ndarray):
            if item.dtype == object:
                stack.extend((v, n_features) for v in item.flat)
        elif isinstance(getattr(item, "__dict__", None), dict):
            attributes = vars(item)
            own = attributes.get("n_features_in_", n_features)
            _check_members(item, own)
            stack.extend((v, own) for v in attributes.values())
    return found


def _check_members(estimator: Any, n_features: int) -> None:
    """Checks that an ensemble hands its trees rows as wide as they expect.

    Only `sklearn.ensemble` calls its members without their own validation. Bagging
    (IsolationForest too) may hand each member its own choice of columns;
    those are taken with numpy, which checks them.
    """
    members = getattr(estimator, "estimators_", None)
    if not type(estimator).__module__.startswith("sklearn.ensemble.") or not isinstance(members, (list, np.ndarray)):
        return
    chosen = getattr(estimator, "estimators_features_", None)
    for position, member in enumerate(np.asarray(members, dtype=object).flat):
        if getattr(member, "tree_", None) is None:
            continue
        given = n_features if chosen is None else len(chosen[position])
        if getattr(member, "n_features_in_", None) != given:
            raise UnsoundTreeError(
                f"member {position} of {type(estimator).__name__} expects"
                f" {getattr(member, 'n_features_in_', None)} features and would be given {given}"
            )


def _check_tree(tree: Any, n_features: int) -> None:
    if tree.n_features != n_features:
        raise UnsoundTreeError(f"a tree over {tree.n_features} features would be given {n_features}")
    left, right = tree.children_left, tree.children_right
    inner = left != _LEAF
    _check_children(left, right, inner)
    _check_range("feature", tree.feature[inner], n_features)


def _check_predictor(predictor: Any, n_features: int) -> None:
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    _check_children(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), inner)
    _check_range("feature", nodes["feature_idx"][inner].astype(np.int64), n_features)
    categorical = inner & (nodes["is_categorical"] != 0)
    bitsets = min(len(predictor.raw_left_cat_bitsets), len(predictor.binned_left_cat_bitsets))
    _check_range("bitset", nodes["bitset_idx"][categorical].astype(np.int64), bitsets)


def _check_children(left: NDArray[Any], right: NDArray[Any], inner: NDArray[Any]) -> None:
    """A child after its parent and inside the array also proves that every walk ends."""
    if not len(left):
        raise UnsoundTreeError("a tree has no nodes")
    index = np.flatnonzero(inner)
    for child in (left[index], right[index]):
        if np.any(child <= index) or np.any(child >= len(left)):
            raise UnsoundTreeError("a tree's node points outside the tree or back to its parents")


def _check_range(what: str, values: NDArray[Any], end: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= end):
        raise UnsoundTreeError(f"a tree's node uses {what} {int(values.max())} of {end}")
