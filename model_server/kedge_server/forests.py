"""Evaluates all trees of an ensemble together, bit for bit as scikit-learn does.

scikit-learn walks tree by tree, which is quick for many rows but costs tens of
microseconds of dispatch a tree and call. Here one numpy operation moves every tree's
walk down a level, for all rows at once, and nothing else changes: the same comparisons
choose the leaves, and their values are added in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from kedge_server.protocol import Array

# Walks under way at once: a few hundred kilobytes, which stay in the processor's cache.
_MAX_WALKS = 32_768
# Past this the arrays would weigh more than a small pod can spare.
MAX_BYTES = 256 << 20
# Walks that have ended are taken out of the way every so many levels, not before the first.
_FIRST_SWEEP, _SWEEP_LEVELS = 5, 2


class TooLargeError(ValueError):
    """The ensemble would need more memory than compiling it is worth."""


@dataclasses.dataclass(frozen=True)
class Tree:
    """One tree, each array (n_nodes,) but `values`.

    Attributes:
        left: Position of the left child; negative at a leaf.
        right: Position of the right child.
        features: Column that an inner node looks at.
        thresholds: A row goes left where its number is at most this.
        values: What a leaf adds, (n_nodes, n_outputs).
    """

    left: Array
    right: Array
    features: Array
    thresholds: Array
    values: Array


class Trees:
    """The trees of one ensemble, to be walked together.

    Nodes are renumbered level by level, so that a right child follows its left sibling
    and a step is `left + (number > threshold)`. A leaf is its own left child and has
    an infinite threshold: a walk that has ended stays.

    Args:
        trees: In the order in which their values are added.

    Raises:
        TooLargeError: They would need more than `MAX_BYTES`.
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        size = sum(len(t.left) * (16 + t.thresholds.itemsize) + t.values.nbytes for t in trees)
        if size > MAX_BYTES:
            raise TooLargeError(f"its trees would need {size >> 20} MiB more")
        left, features, thresholds, values, roots = [], [], [], [], []
        start = self._depth = 0
        for tree in trees:
            order, depth = _breadth_first(tree)
            position = np.empty(len(tree.left), dtype=np.intp)
            position[order] = np.arange(start, start + len(order))
            leaf = tree.left[order] < 0
            left.append(np.where(leaf, position[order], position[tree.left[order]]))
            features.append(np.where(leaf, 0, tree.features[order]).astype(np.intp))
            thresholds.append(np.where(leaf, np.inf, tree.thresholds[order]).astype(tree.thresholds.dtype))
            values.append(tree.values[order])
            roots.append(start)
            start += len(order)
            self._depth = max(self._depth, depth)
        self._left, self._features = np.concatenate(left), np.concatenate(features)
        self._thresholds, self._values = np.concatenate(thresholds), np.concatenate(values)
        self._roots = np.array(roots, dtype=np.intp)

    def sums(self, rows: Array, start: Array | None = None, per_round: int = 1) -> Array:
        """Adds up what the trees say of each row.

        Args:
            rows: (n_rows, n_features), of the thresholds' type, row-major.
            start: What the first tree's value is added to, (per_round * n_outputs,).
            per_round: Trees that count for different outputs and come in turns, as in
                boosting with several classes.

        Returns:
            Sums (n_rows, per_round * n_outputs).
        """
        step = max(1, _MAX_WALKS // len(self._roots))
        if len(rows) <= step:
            return self._sums(rows, start, per_round)
        return np.concatenate([self._sums(rows[i : i + step], start, per_round) for i in range(0, len(rows), step)])

    def _sums(self, rows: Array, start: Array | None, per_round: int) -> Array:
        count = len(rows)
        values = self._values.take(self._leaves(rows), axis=0)
        # (rounds, trees of a round, rows, outputs) to (rounds, rows, all outputs)
        values = values.reshape(-1, per_round, count, self._values.shape[1])
        if per_round > 1:
            values = values.swapaxes(1, 2)
        terms = values.reshape(len(values), count, -1)
        if start is not None:
            terms = np.concatenate((np.broadcast_to(start, (1, *terms.shape[1:])), terms))
        if terms[0].size > 1:
            return np.ascontiguousarray(np.add.reduce(terms, axis=0))
        # A lone column would be added in pairs, which rounds otherwise than one after the other.
        last: Array = np.add.accumulate(terms, axis=0)[-1]
        return last

    def _leaves(self, rows: Array) -> Array:
        """Returns where each walk ends, (n_trees * n_rows,), tree by tree."""
        count, width = rows.shape
        numbers = rows.reshape(-1)
        left, features, thresholds = self._left, self._features, self._thresholds
        nodes = np.repeat(self._roots, count)
        offsets = np.tile(np.arange(0, count * width, width), len(self._roots))
        walking: Array | None = None
        at = nodes
        for level in range(self._depth):
            looked_at = features.take(at)
            looked_at += offsets
            right = numbers.take(looked_at) > thresholds.take(at)
            at = left.take(at)
            at += right
            if level < _FIRST_SWEEP or level % _SWEEP_LEVELS:
                continue
            if walking is None:
                nodes, walking = at.copy(), np.arange(len(at))
            else:
                nodes[walking] = at
            going_on = np.flatnonzero(left.take(at) != at)
            walking, at, offsets = walking[going_on], at[going_on], offsets[going_on]
            if not len(at):
                return nodes
        if walking is None:
            return at
        nodes[walking] = at
        return nodes


def _breadth_first(tree: Tree) -> tuple[Array, int]:
    """Returns the nodes' positions level by level, siblings together, and the depth."""
    level = np.zeros(1, dtype=np.intp)
    levels = [level]
    while True:
        inner = level[tree.left[level] >= 0]
        if not len(inner):
            return np.concatenate(levels), len(levels) - 1
        level = np.column_stack((tree.left[inner], tree.right[inner])).reshape(-1).astype(np.intp)
        levels.append(level)


def of_decision_tree(fitted: Any, scale: float = 1.0) -> Tree:
    """Returns a fitted decision tree of scikit-learn, for float32 rows.

    scikit-learn compares float32 numbers with float64 thresholds. The largest float32
    that is not above a threshold parts all float32 numbers as the threshold does.
    """
    tree = fitted.tree_
    thresholds = tree.threshold.astype(np.float32)
    above = thresholds.astype(np.float64) > tree.threshold
    thresholds[above] = np.nextafter(thresholds[above], np.float32(-np.inf))
    values = tree.value[:, 0, :] * scale if scale != 1.0 else tree.value[:, 0, :]
    return Tree(tree.children_left, tree.children_right, tree.feature, thresholds, values)


def of_predictor(nodes: Array, width: int) -> Tree:
    """Returns a tree of histogram gradient boosting, for float64 rows of 2 * `width`.

    Such a tree sends a missing value where it learnt to. The caller writes each row
    twice: once with minus infinity for missing, once with plus infinity. A node looks
    into the half that takes the missing value its way. A threshold of infinity, which
    sends all numbers left and a missing one right, becomes the largest number.
    """
    features = nodes["feature_idx"].astype(np.intp) + np.where(nodes["missing_go_to_left"] != 0, 0, width)
    leaf = nodes["is_leaf"] != 0
    return Tree(
        left=np.where(leaf, -1, nodes["left"].astype(np.intp)),
        right=nodes["right"].astype(np.intp),
        features=features,
        thresholds=np.minimum(nodes["num_threshold"], np.finfo(np.float64).max),
        values=nodes["value"].astype(np.float64)[:, None],
    )
