"""The two models over digits, and requests for them in each server's own form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import skops.io
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kedge_server import packing

Array = NDArray[Any]

DISTINCT_BODIES = 512


@dataclasses.dataclass(frozen=True)
class Wire:
    """How a server is asked and answers.

    Attributes:
        name: Names the files with its bodies.
        path: Where requests go.
        ask: Rows (n_rows, 64) to the document of a request.
        read: The document of an answer to probabilities, nested or flat.
    """

    name: str
    path: str
    ask: Callable[[Array], Any]
    read: Callable[[Any], Any]


def _tensor(rows: Array) -> Any:
    tensor = {"name": "x", "datatype": "FP64", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    return {"inputs": [tensor], "outputs": [{"name": "predict_proba"}]}


OPEN_INFERENCE = Wire("open-inference", "/v2/models/m/infer", _tensor, lambda answer: answer["outputs"][0]["data"])
ROWS = Wire(
    "rows",
    "/predict",
    lambda rows: {"rows": rows.tolist()},
    lambda answer: answer["predictions"] if isinstance(answer, dict) else answer,
)


def make(folder: Path) -> dict[str, Any]:
    """Fits L, a linear pipeline, and F, a forest of 100, and writes each as package, skops and joblib."""
    rows, labels = load_digits(return_X_y=True)
    fitted = {
        "L": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, labels),
        "F": RandomForestClassifier(100, random_state=0).fit(rows, labels),
    }
    for name, model in fitted.items():
        packing.package(model, rows, folder / name, name="m")
        skops.io.dump(model, folder / f"{name}.skops")
        joblib.dump(model, folder / f"{name}.joblib")
    return fitted


def drawn(rows: int) -> list[Array]:
    """Returns the rows of every request; all differ, since a repeated payload flatters forests."""
    data, _ = load_digits(return_X_y=True)
    dice = np.random.default_rng(0)
    return [data[dice.integers(0, len(data), rows)] for _ in range(DISTINCT_BODIES)]


def bodies(rows: int, wire: Wire) -> list[bytes]:
    """Returns the bodies of all requests with so many rows."""
    return [orjson.dumps(wire.ask(chosen)) for chosen in drawn(rows)]


def write_bodies(folder: Path, rows: int, wire: Wire) -> Path:
    """Writes one body a line; returns the file."""
    path = folder / f"{wire.name}-{rows}"
    if not path.exists():
        path.write_bytes(b"".join(body + b"\n" for body in bodies(rows, wire)))
    return path
