"""What reaches the estimator is what it was trained on, and whose fault it is when it refuses that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from tests.model_server import support
from tests.model_server.support import infer_body, tensor

from kedge_server import decoding, loading, packing, predicting, protocol, proving, signature
from kedge_server.errors import ClientError
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


MIXED = pd.DataFrame({"age": AGES, "income": [1.0, 2.0, 3.0, 4.0] * 10, "city": ["Oslo", "Rome"] * 20})


def mixed_model(**parts: Any) -> Any:
    """Imputes the age, takes the income as it is, and knows Oslo and Rome only."""
    columns = ColumnTransformer(
        [("a", SimpleImputer(), ["age"]), ("i", "passthrough", ["income"]), ("c", OneHotEncoder(), ["city"])]
    )
    return make_pipeline(columns, LogisticRegression(**parts)).fit(MIXED, LABELS)


async def asked(model: Any, **values: Any) -> tuple[int, str]:
    given = {"age": 20.0, "income": 1.0, "city": "Oslo"} | values
    inputs = [
        tensor([value], name=name, datatype="BYTES" if isinstance(value, str) or name == "city" else "FP64")
        for name, value in given.items()
    ]
    async with support.served(model) as server:
        response = await server.infer(infer_body(*inputs))
    return response.status_code, response.text if response.status_code == 200 else response.json()["error"]


async def test_a_feature_that_may_be_missing_is_not_named_for_one_that_may_not() -> None:
    assert (await asked(mixed_model(), age=None))[0] == 200
    assert await asked(mixed_model(), income=None) == (
        400,
        'feature "income" lacks a value (null or NaN), which this model does not admit',
    )
    status, message = await asked(mixed_model(), age=None, income=None)
    assert status == 400
    assert 'features "age", "income" lack values' in message


async def test_a_package_knows_which_feature_may_be_missing(tmp_path: Any) -> None:
    reference = MIXED.assign(age=[np.nan, 30.0, 40.0, 50.0] * 10, income=[1.0, 2.0, 3.0, np.nan] * 10)
    columns = ColumnTransformer([("a", SimpleImputer(), ["age"]), ("i", SimpleImputer(), ["income"])])
    model = make_pipeline(columns, LogisticRegression()).fit(reference[["age", "income"]], LABELS)
    packing.package(model, reference, tmp_path / "p", name="m")
    loaded = loading.load(tmp_path / "p")
    predictor = predicting.Predictor(loaded.estimator, loaded.signature)
    rows = protocol.Rows(1, columns=(np.array([np.nan]), np.array([1e300])))

    predictor._call["predict"] = refusing
    (outcome,) = predictor.run([protocol.InferRequest(None, rows, ("predict",))])

    assert isinstance(outcome, ClientError)
    assert outcome.message == 'feature "income" holds a number that is too large for this model'


def refusing(rows: Any) -> Any:
    raise ValueError("Input X contains NaN, infinity or a value too large for dtype('float32').")


async def test_an_unknown_category_beside_an_imputed_value_is_the_model_s_fault() -> None:
    status, message = await asked(mixed_model(), age=None, city="San Fernando")
    assert (status, "unknown categories" in message) == (500, True)


async def test_an_unknown_category_that_is_a_missing_value_is_the_client_s_fault() -> None:
    assert await asked(mixed_model(), city=None) == (
        400,
        'feature "city" lacks a value (null or NaN), which this model does not admit',
    )


@pytest.mark.parametrize("income", ["abc", "1,5"])
async def test_text_where_the_model_needs_a_number_is_the_client_s_fault(income: str) -> None:
    assert await asked(mixed_model(), income=income) == (
        400,
        f'feature "income" holds "{income}", and this model needs a number there',
    )


async def test_a_number_as_text_is_taken_where_the_model_takes_it() -> None:
    assert (await asked(mixed_model(), income="1.0"))[0] == 200


async def test_text_that_the_model_itself_cannot_use_is_the_model_s_fault() -> None:
    columns = ColumnTransformer([("c", FunctionTransformer(lambda city: city), ["city"])])
    model = make_pipeline(columns, OneHotEncoder(), LogisticRegression()).fit(MIXED[["city"]], LABELS)
    async with support.served(model) as server:
        response = await server.infer(infer_body(tensor(["Paris"], name="city", datatype="BYTES")))
    assert (response.status_code, "unknown categories" in response.json()["error"]) == (500, True)


async def test_a_sparse_answer_that_would_be_too_large_is_refused_and_its_neighbours_are_answered() -> None:
    model = HashingVectorizer()
    described = signature.describe(model)

    def text(rows: int) -> protocol.InferRequest:
        return protocol.InferRequest(
            None, protocol.Rows(rows, matrix=np.array(["a"] * rows, dtype=object)), ("transform",)
        )

    one, nine, eight = predicting.Predictor(model, described).run([text(1), text(9), text(8)])

    assert isinstance(nine, ClientError)
    assert nine.status == 413
    assert "9437184 values, 1048576 for each row; at most 8388608" in nine.message
    assert "send fewer rows" in nine.message
    for outcome, rows in ((one, 1), (eight, 8)):
        assert isinstance(outcome, list)
        assert outcome[0][1].shape == (rows, 1 << 20)
