from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PowerTransformer, StandardScaler
from sklearn.svm import SVC
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


TWO = np.c_[support.IRIS_LABELS, support.IRIS_LABELS > 0]
NAMED = np.array(["a", "b", "c"])[support.IRIS_LABELS]
GUESSED = {
    "binary": (LogisticRegression(max_iter=500), support.IRIS_LABELS > 0),
    "strings": (make_pipeline(StandardScaler(), LogisticRegression()), NAMED),
    "pairs": (SVC(decision_function_shape="ovo"), np.arange(150) % 5),
    "many strings": (RandomForestClassifier(3), np.c_[NAMED, NAMED]),
    "many classifiers": (MultiOutputClassifier(LogisticRegression(max_iter=500)), TWO),
    "many labels": (OneVsRestClassifier(LogisticRegression()), np.c_[TWO[:, 1], 1 - TWO[:, 1]]),
    "regression": (LinearRegression(), support.IRIS[:, 0]),
    "many regressions": (LinearRegression(), support.IRIS[:, :2]),
    "a forest of them": (make_pipeline(StandardScaler(), RandomForestRegressor(3)), support.IRIS[:, :2]),
    "least squares": (PLSRegression(), support.IRIS[:, 0]),
    "clusters": (make_pipeline(StandardScaler(), KMeans(3, n_init=1)), None),
    "mixture": (GaussianMixture(2), None),
    "outliers": (make_pipeline(StandardScaler(), IsolationForest(n_estimators=3)), None),
    "searched": (GridSearchCV(KMeans(n_init=1), {"n_clusters": [2]}), None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GUESSED)
def test_outputs_that_nothing_could_be_predicted_for_are_described_like_those_that_come(name: str) -> None:
    model, labels = GUESSED[name]
    model.fit(support.IRIS, labels)
    guessed = signature.describe(model)
    seen = proving.warm_up(predicting.Predictor(model, guessed), guessed)
    assert [(o.name, o.datatype) for o in guessed.outputs] == [(o.name, o.datatype) for o in seen]
    for guess, output in zip(guessed.outputs, seen, strict=True):
        assert guess.shape in (output.shape, (-1,))
    known = [o for o in guessed.outputs if o.name not in ("transform", "decision_function", "predict_proba")]
    assert all(-1 not in output.shape for output in known)


class Elsewhere:
    """Follows none of scikit-learn's conventions but its methods' names."""

    n_features_in_ = 2

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))


def test_an_estimator_from_elsewhere_need_only_predict() -> None:
    described = signature.describe(Elsewhere())
    assert [column.kind for column in described.columns] == [Kind.ANY, Kind.ANY]
    assert described.outputs == (signature.OutputTensor("predict", "FP64", ()),)


def test_outputs_that_fail_for_the_made_up_row_are_still_described() -> None:
    columns = ColumnTransformer([("c", OneHotEncoder(), ["city"])], remainder="passthrough")
    model = make_pipeline(columns, KMeans(2, n_init=1)).fit(FRAME)
    described = signature.describe(model)
    assert proving.warm_up(predicting.Predictor(model, described), described) == described.outputs
    assert described.outputs[0] == signature.OutputTensor("predict", "INT32", ())

    forest = make_pipeline(PowerTransformer(method="box-cox"), RandomForestClassifier(2)).fit(support.IRIS + 1, TWO)
    outputs = proving.warm_up(predicting.Predictor(forest, signature.describe(forest)), signature.describe(forest))
    assert [(o.name, o.shape) for o in outputs] == [
        ("predict", (2,)),
        ("predict_proba_0", (3,)),
        ("predict_proba_1", (2,)),
    ]
