"""Trains four versions of a digit classifier, and writes what a rollout of them needs.

    python examples/digits/train.py --out build/digits

The folder then holds a package and a manifest for each version, with the digest of that very package filled
in, and `rows.json`: rows that no version has seen in training, to send as live traffic. Versions 1 and 2 are
good. Versions 3 and 4 are the kinds of mistakes that no test on the training data shows.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from kedge_server import packing

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

HERE = pathlib.Path(__file__).parent
SEED = 7
TRAINING_ROWS = 1200
EARLY_ROWS = 150
RECENT_ROWS = 300
PLACEHOLDER = "0" * 64
"""Stands in the manifests where the digest of the trained artifact goes."""


def data() -> tuple[Matrix, Labels]:
    """Returns scikit-learn's digits in a fixed random order: 64 pixels from 0 to 16, and the digit."""
    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(rows))
    return rows[order], labels[order]


def version_1(rows: Matrix, labels: Labels) -> Any:
    """A linear model from the few rows that were labelled at first: about 90 % right."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows[:EARLY_ROWS], labels[:EARLY_ROWS])


def version_2(rows: Matrix, labels: Labels) -> Any:
    """A support vector machine from all rows: about 97 % right."""
    return make_pipeline(StandardScaler(), SVC()).fit(rows[:TRAINING_ROWS], labels[:TRAINING_ROWS])


def version_3(rows: Matrix, labels: Labels) -> Any:
    """Takes each grey value for a category, and raises on one that a pixel did not have in training.

    It is right on every row that it was trained with. About one row in nine that users send holds a
    grey value that is new for its pixel.
    """
    model = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression(max_iter=500))
    return model.fit(rows[:RECENT_ROWS], labels[:RECENT_ROWS])


def version_4(rows: Matrix, labels: Labels) -> Any:
    """Has only seen the digits below 5, and takes every other one for one of them. It never raises."""
    known = labels[:TRAINING_ROWS] < 5
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return model.fit(rows[:TRAINING_ROWS][known], labels[:TRAINING_ROWS][known])


VERSIONS: dict[str, Callable[[Matrix, Labels], Any]] = {
    "v1": version_1,
    "v2": version_2,
    "v3": version_3,
    "v4": version_4,
}
REFERENCE_ROWS = {"v1": EARLY_ROWS, "v2": TRAINING_ROWS, "v3": RECENT_ROWS, "v4": TRAINING_ROWS}
"""Rows of its training that each version is packed with."""


def save(model: Any, path: pathlib.Path) -> str:
    """Writes a model in skops format and returns the sha256 of the file."""
    skops.io.dump(model, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pack(version: str, folder: pathlib.Path) -> str:
    """Writes a package of a version and returns its digest; all are counted over the bins of the first."""
    rows, labels = data()
    first = folder.parent / next(iter(VERSIONS))
    return packing.package(
        VERSIONS[version](rows, labels),
        rows[: REFERENCE_ROWS[version]],
        folder,
        name="digits",
        version=version,
        bins_of=first if first.exists() else None,
    )


def live_rows() -> dict[str, list[Any]]:
    """Returns the rows that no version has seen in training, and what they show."""
    rows, labels = data()
    return {
        "rows": rows[TRAINING_ROWS:].astype(int).tolist(),
        "labels": labels[TRAINING_ROWS:].tolist(),
    }


def train(out: pathlib.Path) -> dict[str, str]:
    """Writes packages, manifests and rows to a folder; returns each version's digest."""
    out.mkdir(parents=True, exist_ok=True)
    digests = {}
    for version in VERSIONS:
        shutil.rmtree(out / version, ignore_errors=True)
    for version in VERSIONS:
        digests[version] = pack(version, out / version)
        manifest = (HERE / f"{version}.yaml").read_text()
        (out / f"{version}.yaml").write_text(manifest.replace(PLACEHOLDER, digests[version]))
    (out / "rows.json").write_text(json.dumps(live_rows(), separators=(",", ":")))
    return digests


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/digits"), help="folder to write to")
    out = parser.parse_args().out
    for version, digest in train(out).items():
        print(f"{digest}  {out / version}/")


if __name__ == "__main__":
    main()
