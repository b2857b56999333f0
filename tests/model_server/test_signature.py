from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from tests.model_server import support

from kedge_server import loading, packing, predicting, proving, signature
from kedge_server.settings import Settings
from kedge_server.signature import Kind, Layout

FRAME = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0] * 5, "city": ["Oslo", "Rome", "Oslo", "Rome"] * 5})
LABELS = np.array(["stay", "leave", "stay", "leave"] * 5)
TEXTS = ["good film", "bad film", "great good", "awful bad"] * 3


def mixed(final: Any = None) -> Any:
    """A pipeline over a number and a string, not fitted."""
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    return make_pipeline(columns, LogisticRegression() if final is None else final)


def by_position() -> Any:
    """The same for an array, which `Bagging` makes of a frame."""
    columns = ColumnTransformer([("n", StandardScaler(), [0]), ("c", OneHotEncoder(handle_unknown="ignore"), [1])])
    return make_pipeline(columns, LogisticRegression())


AROUND = {
    "calibrated": lambda: CalibratedClassifierCV(mixed(), cv=2).fit(FRAME, LABELS),
    "searched": lambda: GridSearchCV(mixed(), {"logisticregression__C": [1.0]}, cv=2).fit(FRAME, LABELS),
    "voting": lambda: VotingClassifier([("a", mixed()), ("b", mixed())]).fit(FRAME, LABELS),
    "stacked": lambda: StackingClassifier([("a", mixed())], cv=2).fit(FRAME, LABELS),
    "target": lambda: TransformedTargetRegressor(mixed(LinearRegression()), transformer=StandardScaler()).fit(
        FRAME, FRAME["age"]
    ),
    "bagged": lambda: BaggingClassifier(by_position(), 3, random_state=0).fit(FRAME, LABELS),
    "bagged, reordered": lambda: BaggingClassifier(
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        3,
        max_features=1,
        random_state=0,
    ).fit(FRAME, LABELS),
    "one versus rest": lambda: OneVsRestClassifier(mixed()).fit(FRAME, LABELS),
    "many outputs": lambda: MultiOutputClassifier(mixed()).fit(FRAME, np.c_[LABELS, LABELS]),
    "threshold": lambda: FixedThresholdClassifier(mixed(), pos_label="stay").fit(FRAME, LABELS),
    "frozen": lambda: CalibratedClassifierCV(FrozenEstimator(mixed().fit(FRAME, LABELS))).fit(FRAME, LABELS),
    "nested": lambda: GridSearchCV(
        CalibratedClassifierCV(mixed(), cv=2), {"method": ["sigmoid"]}, cv=2
    ).fit(FRAME, LABELS),
}  # fmt: skip


@pytest.fixture(scope="module", params=AROUND)
def wrapped(request: pytest.FixtureRequest) -> Any:
    return AROUND[request.param]()


def described(model: Any) -> list[tuple[str, Kind]]:
    return [(column.name, column.kind) for column in signature.describe(model).columns]


def pack(model: Any, reference: Any, folder: Path) -> loading.LoadedModel:
    """Returns what a server would serve of a package of `model`."""
    skops.io.dump(model, folder / "model.skops")
    trusted = tuple(skops.io.get_untrusted_types(file=folder / "model.skops"))
    packing.package(model, reference, folder / "p", name="m", trusted_types=trusted)
    return proving.load_and_prove(Settings(model_name="m", model_path=folder / "p", trusted_types=trusted))[0]


def test_a_model_around_a_pipeline_takes_what_the_pipeline_takes(wrapped: Any) -> None:
    assert [kind for _, kind in described(wrapped)][1] is Kind.STRING


async def test_a_model_around_a_pipeline_is_served_bare_and_packed(wrapped: Any, tmp_path: Path) -> None:
    bare = support.loaded(wrapped)
    proving.warm_up(predicting.Predictor(wrapped, bare.signature), bare.signature)
    city = support.tensor(["Oslo"], name="city", datatype="BYTES")
    for model in (bare, pack(wrapped, FRAME, tmp_path)):
        async with support.served(model) as server:
            response = await server.infer(support.infer_body(support.tensor([30.0], name="age"), city))
            assert response.status_code == 200, response.text


def test_boosting_that_encodes_its_categories_itself_takes_strings(tmp_path: Path) -> None:
    frame = FRAME.astype({"city": "category"})
    model = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=1).fit(frame, LABELS)
    assert described(model) == [("age", Kind.NUMBER), ("city", Kind.STRING)]
    proving.warm_up(predicting.Predictor(model, signature.describe(model)), signature.describe(model))
    pack(model, frame, tmp_path)


@pytest.mark.parametrize(
    "model",
    [
        GridSearchCV(make_pipeline(TfidfVectorizer(), LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2),
        VotingClassifier([("a", make_pipeline(CountVectorizer(), LogisticRegression()))]),
        make_pipeline(FeatureUnion([("a", CountVectorizer()), ("b", TfidfVectorizer())]), LogisticRegression()),
    ],
    ids=["searched", "voting", "union"],
)
async def test_a_model_around_one_of_texts_takes_texts(model: Any) -> None:
    model.fit(TEXTS, [1, 0, 1, 0] * 3)
    assert signature.describe(model).layout is Layout.TEXT
    async with support.served(model) as server:
        response = await server.infer(support.infer_body(support.tensor(["good"], datatype="BYTES")))
        assert response.status_code == 200, response.text


def test_counts_of_words_are_numbers_and_no_texts() -> None:
    model = make_pipeline(TfidfTransformer(), LogisticRegression()).fit(support.IRIS, support.IRIS_LABELS)
    assert (signature.describe(model).layout, described(model)[0]) == (Layout.MATRIX, ("x0", Kind.NUMBER))


@pytest.mark.parametrize(
    "model",
    [
        DummyClassifier(),
        make_pipeline(FunctionTransformer(), DummyClassifier()),
        make_pipeline(ColumnTransformer([("c", OneHotEncoder(), [1])], remainder="drop"), DummyClassifier()),
    ],
    ids=["takes anything", "a function", "dropped"],
)
def test_a_column_of_which_the_model_says_nothing_is_of_no_known_kind(model: Any) -> None:
    kinds = described(model.fit(FRAME, LABELS))
    assert kinds[0] == ("age", Kind.ANY)


def test_the_reference_tells_what_the_model_does_not(tmp_path: Path) -> None:
    columns = pack(DummyClassifier().fit(FRAME, LABELS), FRAME, tmp_path).signature.columns
    assert [(c.name, c.kind) for c in columns] == [("age", Kind.NUMBER), ("city", Kind.STRING)]


def test_an_encoder_behind_an_imputer_tells_its_first_category() -> None:
    frame = FRAME.assign(city=["Rome"] * 15 + ["Oslo"] * 5)[["city"]]
    model = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()).fit(frame)
    (column,) = signature.describe(model).columns
    assert (column.kind, column.example) == (Kind.STRING, "Oslo")
    (column,) = signature.describe(make_union(SimpleImputer(strategy="most_frequent")).fit(frame)).columns
    assert (column.kind, column.example) == (Kind.STRING, "Rome")
