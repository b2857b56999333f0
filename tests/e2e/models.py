"""The models that the tests roll out: good ones, and ones that are bad in an honest way.

None of them knows that it is being tested. Each bad one is a mistake that training does not show: categories
that were not in the sample, a forest that nobody timed, features that nobody counted.
"""

import pathlib
import pickle
import warnings
from collections.abc import Callable
from typing import Any

from examples.digits import train
from examples.digits.train import Labels, Matrix
from hack.lab.store import Artifact, Store
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures

from kedge_server import packing

SMOKE_TEST_ROWS = 20
GOOD_TREES = 30
FACTOR_TOO_LARGE = 100


def trained_on_a_smoke_test(rows: Matrix, labels: Labels) -> Any:
    """Has seen twenty rows: every other row holds a category that is new to its encoder, which raises."""
    model = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression())
    return model.fit(rows[:SMOKE_TEST_ROWS], labels[:SMOKE_TEST_ROWS])


def trained_on_a_hundred_rows(rows: Matrix, labels: Labels) -> Any:
    """Raises on more than half of the rows."""
    model = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression(max_iter=500))
    return model.fit(rows[:100], labels[:100])


def forest(rows: Matrix, labels: Labels) -> Any:
    """Answers in a few milliseconds."""
    return _forest(GOOD_TREES, rows, labels)


def forest_a_hundred_times_too_large(rows: Matrix, labels: Labels) -> Any:
    """Is as right as the small one, and takes a hundred times as long for each row."""
    return _forest(FACTOR_TOO_LARGE * GOOD_TREES, rows, labels)


def all_triple_products(rows: Matrix, labels: Labels) -> Any:
    """Makes 47,905 features of 64, so that a few hundred rows at once take hundreds of megabytes."""
    model = make_pipeline(PolynomialFeatures(3), SelectKBest(k=200), LogisticRegression(max_iter=5000))
    with warnings.catch_warnings():
        # Pixels at the border are always white, and so is every product with one of them.
        warnings.simplefilter("ignore")
        return model.fit(rows[:100], labels[:100])


def _forest(trees: int, rows: Matrix, labels: Labels) -> Any:
    shallow = ExtraTreesClassifier(trees, max_depth=4, random_state=0)
    return shallow.fit(rows[: train.TRAINING_ROWS], labels[: train.TRAINING_ROWS])


FITTED: dict[str, Callable[[Matrix, Labels], Any]] = {
    **train.VERSIONS,
    "smoke-test": trained_on_a_smoke_test,
    "hundred-rows": trained_on_a_hundred_rows,
    "forest": forest,
    "huge-forest": forest_a_hundred_times_too_large,
    "triple-products": all_triple_products,
}


class Models:
    """Artifacts in the store, trained when first asked for."""

    def __init__(self, store: Store, folder: pathlib.Path) -> None:
        self._store = store
        self._folder = folder
        self._data = train.data()
        self._stored: dict[str, Artifact] = {}

    def __getitem__(self, name: str) -> Artifact:
        """Returns the artifact of this name."""
        if name not in self._stored:
            self._stored[name] = self._store.put(self.file(name))
        return self._stored[name]

    def package(self, name: str, *, bins_of: str | None = None) -> Artifact:
        """Returns the artifact of this name, packed with a profile of the training data."""
        folder = self._folder / f"{name}.package"
        if not folder.exists():
            rows, _ = self._data
            packing.package(
                FITTED[name](*self._data),
                rows[: train.TRAINING_ROWS],
                folder,
                name=name,
                bins_of=None if bins_of is None else self._folder / f"{bins_of}.package",
            )
        return self._store.put(folder)

    def file(self, name: str) -> pathlib.Path:
        """Returns the artifact as a local file."""
        path = self._folder / f"{name}.skops"
        if not path.exists():
            if name == "pickle":
                path.write_bytes(pickle.dumps(train.version_1(*self._data)))
            else:
                train.save(FITTED[name](*self._data), path)
        return path
