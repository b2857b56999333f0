"""What a model takes and gives, read off the fitted estimator.

A bare `.skops` file says how many features it was trained on and, when it was trained
on a DataFrame, what they are called; which of them are strings shows in the categories
that its encoders learnt. No model is run here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import get_tags

from kedge_server import protocol

# In the order in which the first one available is the default output.
METHODS = ("predict", "transform", "predict_proba", "decision_function", "score_samples")

_NO_STEP = (None, "drop", "passthrough")
# What only hands rows on: a column that no part of it is given may be anything.
_CONTAINERS = ("Pipeline", "ColumnTransformer", "FeatureUnion")
# Where meta-estimators keep the one that they have fitted, or were given fitted.
_HOLDERS = ("best_estimator_", "estimator_", "regressor_", "estimator")


class Kind(enum.Enum):
    """What a column's values are."""

    NUMBER = "number"
    STRING = "string"
    ANY = "any"  # nothing in the model says


class Layout(enum.Enum):
    """How rows are handed to the estimator."""

    MATRIX = "matrix"  # one array (n_rows, n_features)
    FRAME = "frame"  # a DataFrame, for pipelines that select columns by name
    TEXT = "text"  # a sequence of n_rows strings


@dataclasses.dataclass(frozen=True)
class Column:
    """One feature.

    Attributes:
        name: From training, or scikit-learn's own (x0, x1, ...).
        kind: What its values are.
        example: A value that the model can be expected to take: a category that it
            learnt, zero for other numbers, None when nothing is known.
        datatype: Of the protocol, as the training data had it; None when not known.
        allow_missing: Whether a value may be missing; None leaves it to the model.
    """

    name: str
    kind: Kind
    example: float | str | None = None
    datatype: str | None = None
    allow_missing: bool | None = None


@dataclasses.dataclass(frozen=True)
class OutputTensor:
    """One tensor of an answer.

    Attributes:
        name: The method that makes it; numbered when that gives several.
        datatype: Of the protocol.
        shape: Behind the rows; -1 where it is not known.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What infer requests may carry and ask for.

    Attributes:
        layout: How rows reach the estimator.
        columns: The features in training order; empty when `width` is None.
        width: Number of features, or None when the estimator takes any number.
        named: Whether the names come from training rather than from here.
        methods: Outputs that a request may ask for; the first is the default.
        outputs: The tensors that they give, as far as they are known.
        nones: Positions of the features whose missing values the model knows as None; those of all others are NaN.
    """

    layout: Layout
    columns: tuple[Column, ...]
    width: int | None
    named: bool
    methods: tuple[str, ...]
    outputs: tuple[OutputTensor, ...] = ()
    nones: frozenset[int] = frozenset()

    @functools.cached_property
    def takes_numbers(self) -> bool:
        """Tells whether one tensor of numbers can hold every feature."""
        return all(column.kind is not Kind.STRING for column in self.columns)

    @functools.cached_property
    def takes_strings(self) -> bool:
        """Tells whether one tensor of strings can hold every feature."""
        return all(column.kind is not Kind.NUMBER for column in self.columns)

    @functools.cached_property
    def by_name(self) -> dict[str, Column]:
        """Returns the features by name."""
        return {column.name: column for column in self.columns}

    def rows_of(self, columns: tuple[protocol.Array, ...]) -> protocol.Rows:
        """Puts one array (n_rows,) a feature, in the order of training, into the layout that the model takes."""
        if self.layout is Layout.FRAME:
            return protocol.Rows(len(columns[0]), columns=columns)
        return protocol.Rows(len(columns[0]), matrix=np.column_stack(columns))

    def outputs_of(self, method: str) -> tuple[OutputTensor, ...]:
        """Returns the tensors that one method gives, which may be several with a number each."""
        return tuple(o for o in self.outputs if o.name == method or o.name.removeprefix(f"{method}_").isdigit())

    @functools.cached_property
    def complete(self) -> tuple[int, ...]:
        """Positions of the columns that must not lack a value."""
        return tuple(i for i, column in enumerate(self.columns) if column.allow_missing is False)

    @functools.cached_property
    def numeric(self) -> bool:
        """Tells whether every column is a number, so that rows are one float64 array."""
        return all(column.kind is Kind.NUMBER for column in self.columns)


def describe(model: Any) -> Signature:
    """Reads the signature off a fitted estimator.

    Raises:
        ValueError: The estimator offers none of `METHODS`.
    """
    methods = tuple(name for name in METHODS if hasattr(model, name))
    if not methods:
        raise ValueError(f"{type(model).__name__} offers none of {', '.join(METHODS)}")
    outputs = _guess(model, methods)
    width = getattr(model, "n_features_in_", None)
    if width is None and _takes_text(model):
        text = Column("text", Kind.STRING, "")
        return Signature(Layout.TEXT, (text,), 1, named=False, methods=methods, outputs=outputs)
    if width is None:
        return Signature(Layout.MATRIX, (), None, named=False, methods=methods, outputs=outputs)
    width = int(width)
    names = getattr(model, "feature_names_in_", None)
    known = _known(model, width)
    # scikit-learn's own names for features without one.
    labels = [f"x{i}" for i in range(width)] if names is None else [str(name) for name in names]
    columns = tuple(Column(label, *pair) for label, pair in zip(labels, known, strict=True))
    layout = Layout.FRAME if names is not None and _needs_frame(model, width) else Layout.MATRIX
    nones = frozenset(_nones(model, width))
    return Signature(layout, columns, width, named=names is not None, methods=methods, outputs=outputs, nones=nones)


def _guess(model: Any, methods: tuple[str, ...]) -> tuple[OutputTensor, ...]:
    """Tells the outputs of an estimator that has not been run, by what fitting has left in it."""
    classes, last = getattr(model, "classes_", None), _last(model)
    if isinstance(classes, list):
        # One array of classes for each of several outputs.
        known = {
            "predict": [OutputTensor("predict", protocol.datatype_of(classes[0]), (len(classes),))],
            "predict_proba": [OutputTensor(f"predict_proba_{i}", "FP64", (len(c),)) for i, c in enumerate(classes)],
        }
    elif isinstance(classes, np.ndarray):
        labels: tuple[int, ...] = (len(classes),) if getattr(last, "multilabel_", False) else ()
        # For more than two classes some decide between pairs of them, which are more.
        scores = labels if len(classes) == 2 else (-1,)
        known = {
            "predict": [OutputTensor("predict", protocol.datatype_of(classes), labels)],
            "predict_proba": [OutputTensor("predict_proba", "FP64", (len(classes),))],
            "decision_function": [OutputTensor("decision_function", "FP64", scores)],
        }
    else:
        known = {
            "predict": [OutputTensor("predict", *_of_predictions(last))],
            "decision_function": [OutputTensor("decision_function", "FP64", () if hasattr(last, "offset_") else (-1,))],
        }
    known["score_samples"] = [OutputTensor("score_samples", "FP64", ())]
    return tuple(output for name in methods for output in known.get(name, [OutputTensor(name, "FP64", (-1,))]))


def _of_predictions(last: Any) -> tuple[str, tuple[int, ...]]:
    """Returns datatype and shape of what an estimator without classes predicts."""
    if isinstance(clusters := getattr(last, "labels_", None), np.ndarray):
        return protocol.datatype_of(clusters), ()
    # An outlier detector predicts 1 and -1, a mixture the number of a component.
    if hasattr(last, "offset_") or hasattr(last, "means_"):
        return "INT64", ()
    coefficients: Any = getattr(last, "coef_", ())
    if np.ndim(coefficients) == 2 and not getattr(last, "_predict_1d", False):
        return "FP64", np.shape(coefficients)[:1]
    outputs = getattr(last, "n_outputs_", 1)
    return "FP64", () if outputs == 1 else (outputs,)


def _last(model: Any) -> Any:
    """Returns the estimator that gives the answers of a pipeline or of a search."""
    if isinstance(steps := getattr(model, "steps", None), list):
        return _last(steps[-1][1])
    return _last(model.best_estimator_) if hasattr(model, "best_estimator_") else model


def observed(name: str, array: protocol.Array) -> OutputTensor:
    """Describes an output by one that the model has given."""
    return OutputTensor(name, protocol.datatype_of(array), array.shape[1:])


# What is known of a column: its kind and an example.
_Known = tuple[Kind, float | str | None]
_UNKNOWN: _Known = (Kind.ANY, None)
_PLAIN_NUMBER: _Known = (Kind.NUMBER, 0.0)


def _parts(model: Any, width: int) -> list[tuple[Any, Sequence[int]]]:
    """Returns the fitted estimators inside `model` that its rows meet first, with the columns that each is given.

    There are none in an estimator that looks at its rows itself. `width` is 0 for one that takes text.
    """
    if isinstance(steps := getattr(model, "steps", None), list):
        return [(step, range(width)) for step in _first(steps, width)]
    if hasattr(model, "transformer_list"):
        return [(part, range(width)) for _, part in model.transformer_list if part not in _NO_STEP]
    if hasattr(model, "transformers_"):
        given = model._transformer_to_input_indices  # noqa: SLF001
        return [(part, list(given[name])) for name, part, _ in model.transformers_ if part not in _NO_STEP]
    if getattr(model, "_preprocessor", None) is not None:
        # Histogram gradient boosting encodes its categories itself.
        encoder = model._preprocessor.named_transformers_["encoder"]  # noqa: SLF001
        return [(encoder, np.flatnonzero(model.is_categorical_).tolist())]
    inside = [getattr(model, name) for name in _HOLDERS if hasattr(getattr(model, name, None), "get_params")]
    inside.extend(member.estimator for member in getattr(model, "calibrated_classifiers_", ()))
    found: list[tuple[Any, Sequence[int]]] = [(part, range(width)) for part in inside]
    members = getattr(model, "estimators_", None)
    # A forest's trees, of which there may be thousands, know nothing of its columns.
    if isinstance(members, list) and not all(hasattr(member, "tree_") for member in members):
        found.extend(zip(members, getattr(model, "estimators_features_", [range(width)] * len(members)), strict=True))
    # What has not been fitted is a template; what is given other columns gets the answers of others too.
    return [(part, columns) for part, columns in found if getattr(part, "n_features_in_", 0) == len(columns)]


def _first(steps: list[tuple[str, Any]], width: int) -> list[Any]:
    """Returns the first step of a pipeline; of an imputer and an encoder the latter, which knows all categories."""
    first, *rest = [step for _, step in steps if step not in _NO_STEP] or [None]
    if type(first).__name__ == "SimpleImputer" and rest and len(getattr(rest[0], "categories_", ())) == width:
        return rest[:1]
    return [] if first is None else [first]


def _known(model: Any, width: int) -> list[_Known]:
    """Returns what is known of each of the `width` columns that enter `model`."""
    if len(categories := getattr(model, "categories_", ())) == width:
        return [_of_values(values) for values in categories]
    if type(model).__name__ == "SimpleImputer":
        return [_of_values([value]) for value in model.statistics_.tolist()]
    known: dict[int, _Known] = {}
    for part, columns in _parts(model, width):
        for column, found in zip(columns, _known(part, len(columns)), strict=True):
            known[column] = _merge(known.get(column, _UNKNOWN), found)
    rest = _of_tags(model) if len(known) < width else _UNKNOWN
    return [known.get(i, rest) for i in range(width)]


def _nones(model: Any, width: int) -> set[int]:
    """Returns which of the `width` columns that enter `model` had None where training lacked a value, and never NaN."""
    if isinstance(steps := getattr(model, "steps", None), list):
        # An imputer itself, since the encoder behind it has seen nothing missing.
        first = next((step for _, step in steps if step not in _NO_STEP), None)
        return _nones(first, width)
    if type(model).__name__ == "SimpleImputer":
        return set(range(width)) if model.missing_values is None else set()
    if len(categories := getattr(model, "categories_", ())) == width:
        found = [np.asarray(values).tolist() for values in categories]
        return {i for i, values in enumerate(found) if None in values and all(v == v for v in values)}  # noqa: PLR0124
    return {columns[i] for part, columns in _parts(model, width) for i in _nones(part, len(columns))}


def _of_tags(model: Any) -> _Known:
    """Tells what an estimator itself takes: numbers, unless it is from elsewhere or says that it takes more."""
    if not type(model).__module__.startswith("sklearn.") or type(model).__name__ in _CONTAINERS:
        return _UNKNOWN
    tags = get_tags(model)
    if tags.input_tags.string and not tags.input_tags.two_d_array:
        return Kind.STRING, ""
    anything = tags.no_validation or tags.input_tags.string or tags.input_tags.categorical
    return _UNKNOWN if anything else _PLAIN_NUMBER


def _takes_text(model: Any) -> bool:
    """Tells whether an estimator without a number of features takes texts."""
    parts = _parts(model, 0)
    return all(_takes_text(part) for part, _ in parts) if parts else _of_tags(model)[0] is Kind.STRING


def _merge(a: _Known, b: _Known) -> _Known:
    """Joins what two parts know of one column; categories know more than plain numbers."""
    if _UNKNOWN in (a, b):
        return b if a == _UNKNOWN else a
    if a[0] is not b[0]:
        return _UNKNOWN
    return b if a == _PLAIN_NUMBER else a


def _of_values(values: Any) -> _Known:
    """Tells what learnt categories are; None and NaN among them say nothing."""
    learnt = [v for v in np.asarray(values).tolist() if v is not None and v == v]  # noqa: PLR0124 - NaN is not itself
    if learnt and all(isinstance(v, str) for v in learnt):
        return Kind.STRING, str(learnt[0])
    if learnt and all(isinstance(v, (int, float)) for v in learnt):
        return Kind.NUMBER, float(learnt[0])
    return _UNKNOWN


def _needs_frame(model: Any, width: int) -> bool:
    """Tells whether something in the model may look at column names.

    Anything else scikit-learn turns into an array at once, so building a DataFrame
    (which costs more than most predictions) would be for nothing.
    """
    if not hasattr(model, "get_params"):
        return False
    for item in (model, *model.get_params(deep=True).values()):
        if type(item).__name__ in ("ColumnTransformer", "FunctionTransformer", "ColumnSelector"):
            return True
        if hasattr(item, "get_params") and not type(item).__module__.startswith("sklearn."):
            return True
    return any(_needs_frame(part, len(columns)) for part, columns in _parts(model, width))
