"""Proves that compiled code cannot be led out of its memory by a loaded model.

A model file is data that its types are trusted with, but some of scikit-learn's
compiled code follows that data without bounds checks: node indices, numbers of support
vectors, shapes that are kept in two places. Training makes them fit each other; a file
need not. Everything that can be reached from the model is looked at, innermost first,
so that what a check asks of an estimator stands on parts that have been checked.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.cluster import Birch, BisectingKMeans
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.ensemble._bagging import BaseBagging
from sklearn.ensemble._forest import BaseForest
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.neighbors._base import NeighborsBase
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, TargetEncoder
from sklearn.svm._base import BaseLibSVM

from kedge_server import lookups, machines, trees
from kedge_server.bounds import UnsoundModelError, require

_ATOMS = (str, bytes, int, float, type(None), type, types.FunctionType, types.ModuleType)
_CHECKS: tuple[tuple[type, Callable[[Any], None]], ...] = (
    (BaseForest, trees.check_members),
    (BaseBagging, trees.check_members),
    (BaseGradientBoosting, trees.check_boosting),
    (BaseHistGradientBoosting, trees.check_histogram),
    (BaseLibSVM, machines.check),
    (scipy.sparse.sparray, lookups.check_sparse),
    (scipy.sparse.spmatrix, lookups.check_sparse),
    (np.random.RandomState, lookups.check_random_state),
    (_BaseKMeans, lookups.check_clusters),
    (BisectingKMeans, lookups.check_bisection),
    (Birch, lookups.check_subclusters),
    (NeighborsBase, lookups.check_neighbors),
    (CountVectorizer, lookups.check_vocabulary),
    (DictVectorizer, lookups.check_vocabulary),
    (FeatureHasher, lookups.check_hashes),
    (HashingVectorizer, lookups.check_hashes),
    (OneHotEncoder, lookups.check_one_hot),
    (PolynomialFeatures, lookups.check_powers),
    (TargetEncoder, lookups.check_encodings),
)


def check(model: Any) -> int:
    """Checks everything that `model` consists of, and returns how many trees there are.

    Raises:
        UnsoundModelError: Something does not fit; the message names the attribute.
    """
    found: set[int] = set()
    proved: set[int] = set()
    for part in parts(model):
        if trees.is_tree(part):
            found.add(id(part))
        try:
            proved.update(id(tree) for tree in _check(part))
        except UnsoundModelError:
            raise
        except Exception as exc:
            raise UnsoundModelError(f"{type(part).__name__} cannot be checked: {type(exc).__name__}: {exc}") from exc
    if not found <= proved:
        raise UnsoundModelError("a tree is held by something that is not known to check its rows")
    return len(found)


def parts(model: Any) -> Iterator[Any]:
    """Yields `model` and the objects inside it, each once, after those inside that one."""
    seen: set[int] = set()
    stack = [(model, False)]
    while stack:
        item, opened = stack.pop()
        if opened:
            yield item
        elif not isinstance(item, _ATOMS) and id(item) not in seen:
            seen.add(id(item))
            stack.append((item, True))
            stack.extend((inner, False) for inner in _inside(item))


def _inside(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, (list, tuple, set, frozenset)):
        return item
    if isinstance(item, np.ndarray):
        return np.asarray(item).flat if item.dtype == object else ()
    if isinstance(item, functools.partial):
        return item.func, item.args, item.keywords
    if isinstance(item, (types.MethodType, types.BuiltinMethodType)):
        return (item.__self__,)
    return vars(item).values() if hasattr(item, "__dict__") else ()


def _check(part: Any) -> list[Any]:
    """Checks one object, and returns the trees that this proves sound."""
    if type(part).__module__.startswith("sklearn.") and hasattr(part, "__dict__"):
        _check_shadows(part)
    for kind, rule in _CHECKS:
        if isinstance(part, kind):
            rule(part)
    return trees.proved(part) if hasattr(part, "__dict__") else []


def _check_shadows(part: Any) -> None:
    """Refuses an attribute in the place of a method, such as the one that checks rows."""
    parameters = type(part)._get_param_names() if isinstance(part, BaseEstimator) else ()  # noqa: SLF001
    for name in vars(part):
        require(name in parameters or not hasattr(type(part), name), part, name, "stands for a part of its class")
