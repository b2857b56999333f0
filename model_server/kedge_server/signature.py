"""What a model takes and gives, read off the fitted estimator.

A bare `.skops` file says how many features it was trained on and, when it was trained
on a DataFrame, what they are called; which of them are strings shows in the categories
that its encoders learnt. No model is run here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from kedge_server import protocol

# In the order in which the first one available is the default output.
METHODS = ("predict", "transform", "predict_proba", "decision_function", "score_samples")

_TEXT_MODULE = "sklearn.feature_extraction.text"
_CATEGORY_LEARNERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


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
    nones: tuple[int, ...] = ()

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
    if type(_first_step(model)).__module__ == _TEXT_MODULE:
        text = Column("text", Kind.STRING, "")
        return Signature(Layout.TEXT, (text,), 1, named=False, methods=methods, outputs=_guess(model, methods))
    width = getattr(model, "n_features_in_", None)
    if width is None:
        return Signature(Layout.MATRIX, (), None, named=False, methods=methods, outputs=_guess(model, methods))
    width = int(width)
    names = getattr(model, "feature_names_in_", None)
    known = _known(model, width)
    # scikit-learn's own names for features without one.
    labels = [f"x{i}" for i in range(width)] if names is None else [str(name) for name in names]
    columns = tuple(Column(label, kind, example) for label, (kind, example, _) in zip(labels, known, strict=True))
    layout = Layout.FRAME if names is not None and _needs_frame(model) else Layout.MATRIX
    return Signature(
        layout,
        columns,
        width,
        named=names is not None,
        methods=methods,
        outputs=_guess(model, methods),
        nones=tuple(i for i, (_, _, none) in enumerate(known) if none),
    )


def _guess(model: Any, methods: tuple[str, ...]) -> tuple[OutputTensor, ...]:
    """Tells the outputs of an estimator that has not been run: its classes say most."""
    classes = getattr(model, "classes_", None)
    labels = "FP64"
    if isinstance(classes, np.ndarray):
        labels = protocol.datatype_of(classes)
    width = (-1,) if not isinstance(classes, np.ndarray) else (len(classes),)
    known = {"predict": (labels, ()), "predict_proba": ("FP64", width), "score_samples": ("FP64", ())}
    return tuple(OutputTensor(name, *known.get(name, ("FP64", (-1,)))) for name in methods)


def observed(name: str, array: protocol.Array) -> OutputTensor:
    """Describes an output by one that the model has given."""
    return OutputTensor(name, protocol.datatype_of(array), array.shape[1:])


def _first_step(model: Any) -> Any:
    while isinstance(getattr(model, "steps", None), list):
        steps = [step for _, step in model.steps if step not in (None, "passthrough")]
        if not steps:
            return model
        model = steps[0]
    return model


# What is known of a column: its kind, an example, and whether what is missing is None.
_Known = tuple[Kind, float | str | None, bool]
_UNKNOWN: _Known = (Kind.ANY, None, False)
_PLAIN_NUMBER: _Known = (Kind.NUMBER, 0.0, False)


def _known(model: Any, width: int) -> list[_Known]:
    """Returns what is known of each of the `width` columns that enter `model`."""
    step = _first_step(model)
    name, module = type(step).__name__, type(step).__module__
    if module == _TEXT_MODULE:
        return [(Kind.STRING, "", False)] * width
    if name == "FunctionTransformer" or not module.startswith("sklearn."):
        return [_UNKNOWN] * width
    if name in _CATEGORY_LEARNERS and len(getattr(step, "categories_", ())) == width:
        return [_of_values(categories) for categories in step.categories_]
    by_name: dict[str, Callable[[Any, int], list[_Known]]] = {
        "ColumnTransformer": _of_column_transformer,
        "FeatureUnion": _of_feature_union,
        "SimpleImputer": functools.partial(_of_imputer, _after_imputer(model)),
    }
    found = by_name.get(name)
    return [_PLAIN_NUMBER] * width if found is None else found(step, width)


def _of_feature_union(union: Any, width: int) -> list[_Known]:
    known = [_UNKNOWN] * width
    for _, part in union.transformer_list:
        if part not in ("drop", "passthrough"):
            known = [_merge(a, b) for a, b in zip(known, _known(part, width), strict=True)]
    return known


def _of_imputer(following: Any | None, imputer: Any, width: int) -> list[_Known]:
    if following is not None:
        known = _known(following, width)
    else:
        statistics = np.asarray(imputer.statistics_)
        known = [_of_values(statistics[i : i + 1]) for i in range(width)]
    # What the imputer fills in, nothing behind it has seen missing.
    return [(kind, example, imputer.missing_values is None) for kind, example, _ in known]


def _after_imputer(model: Any) -> Any | None:
    """Returns the encoder behind an imputer, which knows all categories and not just one."""
    steps = [step for _, step in getattr(model, "steps", []) if step not in (None, "passthrough")]
    if len(steps) > 1 and type(steps[1]).__name__ in _CATEGORY_LEARNERS:
        return steps[1]
    return None


def _of_column_transformer(transformer: Any, width: int) -> list[_Known]:
    known = [_UNKNOWN] * width
    for name, part, _ in transformer.transformers_:
        indices = list(transformer._transformer_to_input_indices.get(name, ()))  # noqa: SLF001
        if part in ("drop", "passthrough") or not indices:
            continue
        for index, found in zip(indices, _known(part, len(indices)), strict=True):
            known[index] = _merge(known[index], found)
    return known


def _merge(a: _Known, b: _Known) -> _Known:
    """Joins what two parts know of one column; categories know more than plain numbers."""
    if _UNKNOWN in (a, b):
        return b if a == _UNKNOWN else a
    kind, example, _ = _UNKNOWN if a[0] is not b[0] else b if a == _PLAIN_NUMBER else a
    return kind, example, a[2] or b[2]


def _of_values(values: Any) -> _Known:
    """Tells what learnt categories are; None and NaN among them say nothing of their kind."""
    found = np.asarray(values).tolist()
    learnt = [v for v in found if v is not None and v == v]  # noqa: PLR0124 - NaN is not itself
    # Where training had both, a null of a request can only mean one of them.
    none = None in found and all(v == v for v in found)  # noqa: PLR0124
    if learnt and all(isinstance(v, str) for v in learnt):
        return Kind.STRING, str(learnt[0]), none
    if learnt and all(isinstance(v, (int, float)) for v in learnt):
        return Kind.NUMBER, float(learnt[0]), none
    return Kind.ANY, None, none


def _needs_frame(model: Any) -> bool:
    """Tells whether something in the model may look at column names.

    Anything else scikit-learn turns into an array at once, so building a DataFrame
    (which costs more than most predictions) would be for nothing.
    """
    stack, seen = [model], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        module, name = type(item).__module__, type(item).__name__
        if name in ("ColumnTransformer", "FunctionTransformer", "ColumnSelector"):
            return True
        if hasattr(item, "get_params") and not module.startswith("sklearn."):
            return True
        if hasattr(item, "get_params"):
            stack.extend(v for v in item.get_params(deep=False).values() if not isinstance(v, str))
            stack.extend(step for step in _members(item))
    return False


def _members(estimator: Any) -> list[Any]:
    named = [*getattr(estimator, "steps", ()), *getattr(estimator, "transformer_list", ())]
    if isinstance(getattr(estimator, "estimators", None), list):
        named.extend(estimator.estimators)
    return [pair[1] for pair in named if isinstance(pair, tuple)]
