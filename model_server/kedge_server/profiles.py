"""What training data looked like, in numbers that add up.

A profile has, for each feature and each output, fixed bins with the counts of the
reference data. Live rows are counted over the same bins, so counts of several pods and
of a pod's lives before a restart add exactly, which statistics such as a PSI do not.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kedge_server import decoding, protocol

# Bounds on what Prometheus has to keep: at most 50 features with 13 bins each. Of further ones there is only
# whether a value is missing, out of range or new, all together.
MAX_FEATURES = 50
_DECILES = 10
MAX_OUTPUTS = 50
_MAX_CATEGORIES = 10
# A feature with more is no feature of categories, and to keep them all could be megabytes.
_MAX_OTHERS = 10_000
_MAX_LABEL_CHARS = 64
_DIGEST_CHARS = 8

MISSING = "__missing__"
NEW = "__new__"
OTHER = "__other__"


@dataclasses.dataclass(frozen=True)
class Bins:
    """Fixed bins over one feature or output, with the reference's counts.

    Attributes:
        name: Feature or output.
        edges: For numbers: minimum, inner deciles, maximum of the reference, ascending, and one that divides the
            minimum from the rest where it is frequent. The bins lie below, between and above them.
        categories: For strings: the most frequent ones. The others of the reference
            are counted as `__other__`, and what it did not have as `__new__`.
        others: Categories of the reference that have no bin of their own.
        open: Whether the reference has more categories than are kept, as where each row has an identifier of its own.
            Whatever has no bin is `__other__` then, and nothing is new.
        counts: Rows of the reference in each of `labels`.
        strings: Whether the values are strings although no category has a bin. When the reference has none at
            all, every string is new; of numbers none is out of range then.
    """

    name: str
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    strings: bool = False
    open: bool = False

    @property
    def numeric(self) -> bool:
        """Tells whether the bins are ranges."""
        return not self.categories and not self.strings

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """Returns a label a bin, each another: a range's upper edge or a category; what is missing comes last."""
        if self.numeric:
            return (*(repr(float(edge)) for edge in self.edges), "+Inf", MISSING)
        short = [category[:_MAX_LABEL_CHARS] for category in self.categories]
        often = collections.Counter((*short, OTHER, NEW, MISSING))
        named = (s if often[s] == 1 else _digested(c) for s, c in zip(short, self.categories, strict=True))
        return (*named, OTHER, NEW, MISSING)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Returns the position of the bin of each category that the reference has."""
        return {category: min(i, len(self.categories)) for i, category in enumerate((*self.categories, *self.others))}

    def to_json(self) -> dict[str, Any]:
        """Returns the form that a package keeps."""
        return {"name": self.name, **{k: v for k, v in dataclasses.asdict(self).items() if v and k != "name"}}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Bins:
        """Reads that form.

        Raises:
            ValueError: The bins contradict themselves.
        """
        bins = cls(
            name=str(document["name"]),
            edges=tuple(float(v) for v in document.get("edges", ())),
            categories=tuple(str(v) for v in document.get("categories", ())),
            others=tuple(str(v) for v in document.get("others", ())),
            counts=tuple(int(v) for v in document["counts"]),
            strings=bool(document.get("strings", False)),
            open=bool(document.get("open", False)),
        )
        if len(bins.counts) != len(bins.labels):
            raise ValueError(f"{bins.name} has {len(bins.counts)} counts for {len(bins.labels)} bins")
        if min(bins.counts) < 0:
            raise ValueError(f"{bins.name} has a count below 0")
        if len(set(bins.labels)) < len(bins.labels):
            raise ValueError(f"{bins.name} has two bins of one label")
        if list(bins.edges) != sorted(set(bins.edges)):
            raise ValueError(f"the edges of {bins.name} do not ascend")
        if len(bins.labels) > _DECILES + 3:
            raise ValueError(f"{bins.name} has {len(bins.labels)} bins")
        return bins


@dataclasses.dataclass(frozen=True)
class Profile:
    """What the reference looked like.

    Attributes:
        rows: Number of rows of the reference.
        features: Bins of the first `MAX_FEATURES` features.
        outputs: Bins of what the model predicted for the reference.
        calibrated: Whether the model's probabilities come from a calibration.
        further: Of the other features no more than the range or the categories; empty in older packages.
    """

    rows: int
    features: tuple[Bins, ...]
    outputs: tuple[Bins, ...]
    calibrated: bool = False
    further: tuple[Bins, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the form that a package keeps."""
        return {
            "rows": self.rows,
            "calibrated": self.calibrated,
            "features": [bins.to_json() for bins in self.features],
            "outputs": [bins.to_json() for bins in self.outputs],
            "further": [bins.to_json() for bins in self.further],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Profile:
        """Reads that form.

        Raises:
            ValueError, KeyError, TypeError: It is damaged.
        """
        features = tuple(Bins.from_json(d) for d in document["features"])
        further = tuple(Bins.from_json(d) for d in document.get("further", ()))
        outputs = tuple(Bins.from_json(d) for d in document["outputs"])
        if len(features) > MAX_FEATURES or len(outputs) > MAX_OUTPUTS:
            raise ValueError(f"it has bins for {len(features)} features and {len(outputs)} outputs")
        for what, names in (
            ("feature", [b.name for b in (*features, *further)]),
            ("output", [b.name for b in outputs]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"it has one {what} twice")
        return cls(
            rows=int(document["rows"]),
            features=features,
            outputs=outputs,
            calibrated=bool(document.get("calibrated", False)),
            further=further,
        )


def _digested(category: str) -> str:
    """Returns a label for a category whose own is another's too; the same one whichever categories are beside it."""
    digest = hashlib.sha256(category.encode()).hexdigest()[:_DIGEST_CHARS]
    return f"{category[: _MAX_LABEL_CHARS - _DIGEST_CHARS - 1]}~{digest}"


def measure(name: str, values: protocol.Array, *, coarse: bool = False) -> Bins:
    """Chooses bins for the reference's values (n_rows,), strings when they are objects, and counts them.

    Coarse bins only tell what lies within the reference from what does not.
    """
    present = values[~decoding.is_missing(values)]
    if values.dtype == object:
        return _measure_categories(name, values, [str(v) for v in present.tolist()], 0 if coarse else _MAX_CATEGORIES)
    numbers = present[np.isfinite(present)].astype(np.float64)
    # Values of the data itself, so that an edge is not a rounding error beside one.
    levels = np.linspace(0, 1, 2 if coarse else _DECILES + 1)
    quantiles = np.quantile(numbers, levels, method="inverted_cdf") if len(numbers) else numbers
    edges = np.unique(quantiles)
    if len(edges) == 1:
        # A constant is a range too, and not the end of one.
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    elif not coarse and len(edges) and quantiles[1] == quantiles[0]:
        # The lowest bin holds both of its ends. Where a tenth or more are the minimum, such as the zeros of a flag, it
        # would hold them together with the next value, and a drift from one to the other would not be seen.
        second = numbers[numbers > edges[0]].min()
        between = edges[0] + (second - edges[0]) / 2
        if edges[0] < between < second:
            edges = np.insert(edges, 1, between)
    bins = Bins(name, edges=tuple(float(v) for v in edges))
    return dataclasses.replace(bins, counts=tuple(count(bins, values).tolist()))


def _measure_categories(name: str, values: protocol.Array, present: list[str], most: int) -> Bins:
    found, frequency = np.unique(np.array(present, dtype=object), return_counts=True)
    order = np.lexsort((found.astype(str), -frequency))
    ranked = [str(found[i]) for i in order]
    kept, others = tuple(ranked[:most]), tuple(ranked[most:])
    too_many = len(others) > _MAX_OTHERS
    bins = Bins(name, categories=kept, others=() if too_many else others, strings=not kept, open=too_many)
    return dataclasses.replace(bins, counts=tuple(count(bins, values).tolist()))


def count(bins: Bins, values: protocol.Array) -> protocol.Array:
    """Returns how many of `values` (n_rows,) lie in each bin, as int64 (n_bins,)."""
    return np.bincount(place(bins, values), minlength=len(bins.labels))


def place(bins: Bins, values: protocol.Array) -> protocol.Array:
    """Returns the position of each value's bin, as int64 (n_rows,)."""
    last = len(bins.labels) - 1
    if bins.numeric:
        numbers = as_numbers(values)
        positions = np.searchsorted(comparable_edges(bins), numbers)
        positions[np.isnan(numbers)] = last
        return positions
    index, unknown = bins.index, last - 2 if bins.open else last - 1
    found = [last if v is None or v != v else index.get(str(v), unknown) for v in values.tolist()]  # noqa: PLR0124
    return np.array(found, dtype=np.int64)


def comparable_edges(bins: Bins) -> protocol.Array:
    """Returns edges such that a value's bin is how many of them lie below it.

    The minimum itself belongs to the reference's range and not below it.
    """
    edges = np.asarray(bins.edges)
    edges[:1] = np.nextafter(edges[:1], -np.inf)
    return edges


def as_numbers(values: protocol.Array) -> protocol.Array:
    """Returns a column as float64 (n_rows,), with NaN for whatever is no number."""
    if values.dtype != object:
        return values.astype(np.float64, copy=False)
    return np.array([v if isinstance(v, (int, float)) else np.nan for v in values.tolist()], dtype=np.float64)


def of_features(
    names: Sequence[str], columns: Sequence[protocol.Array], like: Profile | None = None
) -> tuple[tuple[Bins, ...], tuple[Bins, ...]]:
    """Measures the first `MAX_FEATURES` features, and the further ones coarsely.

    The bins are those of another profile, where it has some of that kind.
    """
    pairs = list(zip(names, columns, strict=True))
    features, further = (like.features, like.further) if like else ((), ())
    return (
        _measure_all(pairs[:MAX_FEATURES], features, coarse=False),
        _measure_all(pairs[MAX_FEATURES:], further, coarse=True),
    )


def _measure_all(
    pairs: Sequence[tuple[str, protocol.Array]], like: Sequence[Bins], *, coarse: bool
) -> tuple[Bins, ...]:
    known = {bins.name: bins for bins in like}
    return tuple(_measure_like(known.get(name), measure(name, values, coarse=coarse), values) for name, values in pairs)


def of_outputs(outputs: Sequence[protocol.Output], like: Profile | None = None) -> tuple[Bins, ...]:
    """Measures what can be put into bins: labels and numbers, and the highest probability."""
    scalars = [(name, scalar(name, array)) for name, array in outputs]
    pairs = [(name, values) for name, values in scalars if values is not None]
    return _measure_all(pairs[:MAX_OUTPUTS], like.outputs if like else (), coarse=False)


def _measure_like(known: Bins | None, own: Bins, values: protocol.Array) -> Bins:
    if known is None or known.numeric != own.numeric:
        return own
    return dataclasses.replace(known, counts=tuple(count(known, values).tolist()))


def scalar(name: str, array: protocol.Array) -> protocol.Array | None:
    """Returns one value a row for an output, or None for one that has none.

    Labels count as categories, whatever their type. Of probabilities the highest is
    taken: how sure the model is.
    """
    if name.startswith("predict_proba") and array.ndim == 2:
        # Class by class, since numpy is slow at the maximum of many short rows.
        highest: protocol.Array = np.ascontiguousarray(array.T).max(axis=0)
        return highest
    if array.ndim != 1:
        return None
    if array.dtype.kind == "f":
        return array
    return array.astype(str).astype(object)
