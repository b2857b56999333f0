"""What reaches the estimator is what it was trained on, and whose fault it is when it refuses that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from tests.model_server import support
from tests.model_server.support import infer_body, tensor

from kedge_server import decoding, loading, packing, predicting, protocol, proving, signature
from kedge_server.settings import Settings

LABELS = ["stay", "stay", "leave", "leave"] * 10
AGES = [20.0, 30.0, 40.0, 50.0] * 10
CITIES = ["Oslo", "Rome", np.nan, np.nan] * 10
UNKNOWN_IGNORED = OneHotEncoder(handle_unknown="ignore")


def frame(missing: Any = np.nan) -> pd.DataFrame:
    """Forty rows, half of them without a city."""
    cities = np.array(CITIES, dtype=object)
    cities[pd.isna(cities)] = missing
    dtype = object if missing is None else None
    return pd.DataFrame({"age": AGES, "city": pd.Series(cities, dtype=dtype)})


def of_city(*steps: Any) -> Any:
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", make_pipeline(*steps), ["city"])])
    return make_pipeline(columns, LogisticRegression(C=100))


def matrix(missing: Any) -> Any:
    rows = frame(missing).to_numpy(dtype=object)
    return rows[:, 1:]


def encoded(missing: Any) -> Any:
    return make_pipeline(clone(UNKNOWN_IGNORED), LogisticRegression(C=100)).fit(matrix(missing), LABELS)


# Each with rows as in training; the first lacks its string.
MODELS = {
    "categories with NaN": (of_city(UNKNOWN_IGNORED).fit(frame(), LABELS), frame()),
    "categories with None": (of_city(UNKNOWN_IGNORED).fit(frame(None), LABELS), frame(None)),
    "the most frequent imputed": (
        of_city(SimpleImputer(strategy="most_frequent"), OneHotEncoder()).fit(frame(), LABELS),
        frame(),
    ),
    "a constant imputed": (
        of_city(SimpleImputer(strategy="constant", fill_value="none"), UNKNOWN_IGNORED).fit(frame(), LABELS),
        frame(),
    ),
    "None imputed": (
        of_city(SimpleImputer(missing_values=None, strategy="constant", fill_value="none"), UNKNOWN_IGNORED).fit(
            frame(None), LABELS
        ),
        frame(None),
    ),
    "text of a frame": (
        of_city(FunctionTransformer(lambda city: city.apply(lambda c: c.str.len().fillna(9.0)))).fit(frame(), LABELS),
        frame(),
    ),
    "a matrix with NaN": (encoded(np.nan), matrix(np.nan)),
    "a matrix with None": (encoded(None), matrix(None)),
}


def request(rows: Any, described: signature.Signature) -> protocol.InferRequest:
    """Returns these rows as a client sends them, who has null for what is missing."""
    rows = pd.DataFrame(rows)
    document = infer_body(
        *(
            tensor(
                [None if pd.isna(v) else v for v in rows.iloc[:, i]],
                name=column.name,
                datatype="BYTES" if column.kind is not signature.Kind.NUMBER else "FP64",
            )
            for i, column in enumerate(described.columns)
        ),
        outputs=[{"name": "predict_proba"}],
    )
    return decoding.infer_document(document, described)


@pytest.mark.parametrize(("model", "rows"), MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("chosen", [[2], [2, 3], [2, 0], [0, 1]], ids=["missing", "both", "one", "none"])
def test_a_missing_string_is_answered_as_by_the_model_itself(model: Any, rows: Any, chosen: list[int]) -> None:
    described = signature.describe(model)
    asked = rows.iloc[chosen] if isinstance(rows, pd.DataFrame) else rows[chosen]

    (outcome,) = predicting.Predictor(model, described).run([request(asked, described)])

    assert isinstance(outcome, list), outcome
    assert outcome[0][1].tolist() == model.predict_proba(asked).tolist()


@pytest.mark.parametrize(("model", "rows"), MODELS.values(), ids=MODELS.keys())
def test_a_missing_string_is_answered_alike_alone_and_in_a_batch(model: Any, rows: Any) -> None:
    described = signature.describe(model)
    predictor = predicting.Predictor(model, described)
    requests = [request(rows[i : i + 1], described) for i in range(4)]

    together = predictor.run(requests)

    for outcome, each in zip(together, requests, strict=True):
        (alone,) = predictor.run([each])
        assert isinstance(outcome, list)
        assert isinstance(alone, list)
        assert np.allclose(outcome[0][1], alone[0][1], rtol=1e-12)


@pytest.mark.parametrize("missing", [np.nan, None], ids=["NaN", "None"])
def test_golden_rows_hold_what_the_model_itself_answers_where_a_string_is_missing(tmp_path: Any, missing: Any) -> None:
    rows = frame(missing)
    model = of_city(UNKNOWN_IGNORED).fit(rows, LABELS)
    packing.package(model, rows, tmp_path / "p", name="m")

    package = loading.load(tmp_path / "p").package

    assert package is not None
    assert None in package.golden.rows[1]
    chosen = np.linspace(0, 39, 20).astype(int)
    assert np.allclose(package.golden.answers["predict_proba"], model.predict_proba(rows.iloc[chosen]), rtol=1e-12)


async def test_a_missing_string_is_counted_as_one(tmp_path: Any) -> None:
    packing.package(of_city(UNKNOWN_IGNORED).fit(frame(), LABELS), frame(), tmp_path / "p", name="m")
    model, _ = proving.load_and_prove(Settings(model_name="m", model_path=tmp_path / "p"))
    async with support.served(model) as server:
        cities = tensor([None, "Oslo"], name="city", datatype="BYTES")
        response = await server.infer(infer_body(tensor([20.0, 30.0], name="age"), cities))
        page = server.metrics.render(["kedge_server_feature_missing_total"]).decode()

    assert response.status_code == 200
    assert 'feature="city"} 1' in page
