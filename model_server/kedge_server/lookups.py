"""Proves that what a model looks up in its tables lies inside them.

These are the estimators, besides trees and support vector machines, whose answers come
from compiled code that takes a number of the model for a position or a size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster._bisect_k_means import _BisectingTree

from kedge_server import bounds
from kedge_server.bounds import require, width
from kedge_server.protocol import Array

# murmurhash gives 32 bits with a sign.
_MAX_HASHES = 2**31 - 1
_MERSENNE_WORDS = 624


def check_sparse(matrix: Any) -> None:
    """Checks what scipy's products take for granted; it looks itself when it makes other formats."""
    if matrix.format in ("csr", "csc", "bsr"):
        matrix.check_format(full_check=True)
        # Which scipy leaves out when the last pointer says that there are no numbers.
        require(np.all(np.diff(matrix.indptr) >= 0), matrix, "indptr", "goes back")


def check_random_state(state: Any) -> None:
    """Checks from where in its words a generator would go on."""
    position = state.get_state()[2]
    require(0 <= position <= _MERSENNE_WORDS, state, "pos", f"is {position} of {_MERSENNE_WORDS}")


def check_clusters(model: Any) -> None:
    """Checks that the centers of k-means are as wide as the rows that they are compared with."""
    if "cluster_centers_" not in vars(model):
        return
    centers = model.cluster_centers_
    fits = centers.ndim == 2 and len(centers) and centers.shape[1] == width(model)
    require(fits, model, "cluster_centers_", f"is {centers.shape} for rows of {width(model)}")


def check_bisection(model: Any) -> None:
    """Checks the same of every split of bisecting k-means."""
    if "_bisecting_tree" not in vars(model):
        return
    stack = [model._bisecting_tree]  # noqa: SLF001
    while stack:
        node = stack.pop()
        fits = isinstance(node, _BisectingTree) and np.shape(node.center) == (width(model),)
        require(fits, model, "_bisecting_tree", f"has a center that is not for rows of {width(model)}")
        if node.left is not None:
            stack.extend((node.left, node.right))


def check_subclusters(model: Any) -> None:
    """Checks that Birch keeps a norm for each center."""
    if "subcluster_centers_" in vars(model):
        count = len(model.subcluster_centers_)
        require(np.shape(model._subcluster_norms) == (count,), model, "_subcluster_norms", f"are not {count}")  # noqa: SLF001


def check_neighbors(model: Any) -> None:
    """Checks the rows that neighbours are looked for among, and the classes that they vote for."""
    if "_fit_X" not in vars(model):
        return
    rows = model._fit_X  # noqa: SLF001
    shape = (model.n_samples_fit_, width(model))
    require(rows.shape == shape and shape[0], model, "_fit_X", f"is {rows.shape} and not {shape}")
    for name in ("metric_params", "effective_metric_params_"):
        # Norms of rows, which are believed to be as many as the rows.
        norms = {"X_norm_squared", "Y_norm_squared"} & set(vars(model).get(name) or ())
        require(not norms, model, name, f"brings {', '.join(norms)}")
    if "classes_" in vars(model) and not model.outputs_2d_:
        votes = bounds.array(model, "_y", (shape[0],), np.intp)
        inside = votes.min() >= 0 and votes.max() < len(model.classes_)
        require(inside, model, "_y", f"has classes beyond the {len(model.classes_)} of classes_")


def check_vocabulary(vectorizer: Any) -> None:
    """Checks that each term of a text has a column of its own inside the matrix."""
    if "vocabulary_" in vars(vectorizer):
        terms = vectorizer.vocabulary_
        fits = type(terms) is dict and sorted(terms.values()) == list(range(len(terms)))
        require(fits, vectorizer, "vocabulary_", "does not number its terms from 0")


def check_hashes(hasher: Any) -> None:
    """Checks a number that hashes are divided by."""
    fits = isinstance(hasher.n_features, (int, np.integer)) and 1 <= hasher.n_features <= _MAX_HASHES
    require(fits, hasher, "n_features", f"is not a number from 1 to {_MAX_HASHES}")


def check_powers(model: Any) -> None:
    """Checks that polynomial features fill the array that they are put into, which starts with what was in memory."""
    if "_n_out_full" in vars(model):
        terms = model._num_combinations(  # noqa: SLF001
            n_features=width(model),
            min_degree=0,
            max_degree=model._max_degree,  # noqa: SLF001
            interaction_only=model.interaction_only,
            include_bias=model.include_bias,
        )
        require(model._n_out_full == terms, model, "_n_out_full", f"is not {terms}")  # noqa: SLF001


def check_encodings(encoder: Any) -> None:
    """Checks the same of target encoding: a column for each feature, and class if there are several."""
    if "encodings_" in vars(encoder):
        columns = width(encoder) * (len(encoder.classes_) if encoder.target_type_ == "multiclass" else 1)
        require(len(encoder.encodings_) == columns, encoder, "encodings_", f"are not {columns}")


def check_one_hot(encoder: Any) -> None:
    """Checks that every category has its column inside the columns of its feature."""
    if "_n_features_outs" not in vars(encoder):
        return
    sizes, count = encoder._n_features_outs, len(encoder.categories_)  # noqa: SLF001
    whole = type(sizes) is list and len(sizes) == count == width(encoder) and all(type(n) is int for n in sizes)
    require(whole, encoder, "_n_features_outs", f"is not a list of {width(encoder)} numbers")
    dropped = encoder._drop_idx_after_grouping  # noqa: SLF001
    require(dropped is None or np.shape(dropped) == (count,), encoder, "_drop_idx_after_grouping", "has another length")
    for feature, size in enumerate(sizes):
        codes = _codes(encoder, feature)
        if dropped is not None and dropped[feature] is not None:
            codes = codes[codes != dropped[feature]]
            codes = codes - (codes > dropped[feature])
        inside = not len(codes) or (codes.min() >= 0 and codes.max() < size)
        require(inside, encoder, "_n_features_outs", f"gives feature {feature} {size} columns, which are too few")


def _codes(encoder: Any, feature: int) -> Array:
    """Returns the numbers that a feature's values may become."""
    categories = encoder.categories_[feature]
    if categories.dtype.kind not in "OUS":
        # They are found by halving, which goes past the end of what is not in order.
        known = categories[:-1] if categories.dtype.kind == "f" and np.isnan(categories[-1]) else categories
        require(np.all(known[:-1] <= known[1:]), encoder, "categories_", "are not in order")
    codes = np.arange(len(categories))
    if not encoder._infrequent_enabled:  # noqa: SLF001
        return codes
    mapping, rare = encoder._default_to_infrequent_mappings[feature], encoder._infrequent_indices[feature]  # noqa: SLF001
    require((mapping is None) == (rare is None), encoder, "_infrequent_indices", "are not those of the mappings")
    return codes if mapping is None else np.asarray(np.take(mapping, codes))
