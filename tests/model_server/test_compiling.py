from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.model_server import support
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from kedge_server import compiling, errors, forests, packages, predicting, protocol, signature, spot_checks, stages

# Huge numbers overflow on the way, with scikit-learn as without.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

ROWS, LABELS = load_iris(return_X_y=True)
# Numbers with all their digits: rounding must show.
ROWS = ROWS + np.random.default_rng(0).normal(0, 0.01, ROWS.shape)
TEXTS = np.array(["setosa", "versicolor", "virginica"])[LABELS]
TWO = np.array(["no", "yes"])[(LABELS == 1).astype(int)]
TARGET = ROWS @ np.array([1.0, -2.0, 0.5, 3.0]) + LABELS
HOLES = np.where(np.random.default_rng(1).random(ROWS.shape) < 0.3, np.nan, ROWS)
# What lacks a value is another kind of row: the split that says so has an infinite threshold.
TELLING = np.where(np.random.default_rng(2).random(ROWS.shape) < 0.5, np.nan, ROWS)

MODELS: dict[str, Callable[[], Any]] = {
    "linear, texts": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(ROWS, TEXTS),
    "linear, two classes": lambda: make_pipeline(MinMaxScaler(clip=True), LogisticRegression()).fit(ROWS, TWO),
    "linear, projected": lambda: make_pipeline(
        SimpleImputer(), RobustScaler(), PCA(3, whiten=True), SGDClassifier(loss="log_loss", random_state=0)
    ).fit(HOLES, TWO),
    "linear, selected": lambda: make_pipeline(MaxAbsScaler(), SelectKBest(k=2), LinearSVC()).fit(ROWS, LABELS),
    "linear, searched": lambda: GridSearchCV(
        make_pipeline(StandardScaler(with_std=False), RidgeClassifier()), {"ridgeclassifier__alpha": [1.0]}, cv=2
    ).fit(ROWS, LABELS),
    "linear, number": lambda: Ridge().fit(ROWS, TARGET),
    "linear, two numbers": lambda: LinearRegression().fit(ROWS, np.column_stack([TARGET, -TARGET])),
    "linear, descended": lambda: make_pipeline(StandardScaler(), SGDRegressor(random_state=0)).fit(ROWS, TARGET),
    "forest, texts": lambda: RandomForestClassifier(20, random_state=0).fit(ROWS, TEXTS),
    "forest, two classes": lambda: ExtraTreesClassifier(20, random_state=0).fit(ROWS, TWO),
    "forest, number": lambda: RandomForestRegressor(20, random_state=0).fit(ROWS, TARGET),
    "forest, deep": lambda: RandomForestRegressor(3, random_state=0, bootstrap=False).fit(
        2.0 ** np.repeat(np.arange(40.0)[:, None], 4, axis=1), 3.0 ** np.arange(40)
    ),
    "forest behind a scaler": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(
        ROWS, LABELS
    ),
    "forest with holes": lambda: RandomForestClassifier(5, random_state=0).fit(HOLES, LABELS),
    "tree": lambda: DecisionTreeClassifier(random_state=0).fit(ROWS, TWO),
    "tree, number": lambda: DecisionTreeRegressor(random_state=0).fit(ROWS, TARGET),
    "boosting, texts": lambda: GradientBoostingClassifier(n_estimators=8, random_state=0).fit(ROWS, TEXTS),
    "boosting, two classes": lambda: GradientBoostingClassifier(n_estimators=8, random_state=0).fit(ROWS, TWO),
    "boosting, from zero": lambda: GradientBoostingClassifier(n_estimators=3, init="zero").fit(ROWS, TWO),
    "boosting, number": lambda: GradientBoostingRegressor(n_estimators=8, random_state=0).fit(ROWS, TARGET),
    "histograms, texts": lambda: HistGradientBoostingClassifier(max_iter=8).fit(ROWS, TEXTS),
    "histograms, ten classes": lambda: HistGradientBoostingClassifier(max_iter=3).fit(ROWS, np.arange(150) % 10),
    "histograms, two classes": lambda: HistGradientBoostingClassifier(max_iter=8).fit(HOLES, TWO),
    "histograms, telling holes": lambda: HistGradientBoostingRegressor(max_iter=8).fit(
        TELLING, np.isnan(TELLING).sum(axis=1) * 10.0
    ),
    "histograms, counts": lambda: HistGradientBoostingRegressor(loss="poisson", max_iter=8).fit(ROWS, LABELS),
}
# Nothing but a difference in any bit is a difference here.
EXACT = packages.GoldenRows((), {}, 0.0, 0.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take seconds for a few rows."""
    with threadpool_limits(1):
        yield


@functools.cache
def fitted(name: str) -> Any:
    return MODELS[name]()


@functools.cache
def predictors(name: str) -> tuple[predicting.Predictor, predicting.Predictor]:
    """Returns scikit-learn's predictor and the compiled one, which never looks at the other."""
    model = fitted(name)
    described = signature.describe(model)
    plain, compiled = (predicting.Predictor(model, described) for _ in range(2))
    compiled.use(spot_checks.Compiled(compiling.compiled(model, described), EXACT, draw=lambda: 1.0))
    return plain, compiled


def same(a: predicting.Outcome, b: predicting.Outcome) -> bool:
    if isinstance(a, errors.RequestError) or isinstance(b, errors.RequestError):
        return type(a) is type(b) and str(a) == str(b)
    return [name for name, _ in a] == [name for name, _ in b] and all(
        x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
        for (_, x), (_, y) in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_model_gives_scikit_learn_s_answers_to_the_last_bit(name: str) -> None:
    model = fitted(name)
    functions = compiling.compiled(model, signature.describe(model))
    assert {"predict", "predict_proba"} & set(signature.describe(model).methods) <= {
        *functions,
        *(["predict_proba"] if "SGD" in str(model) else []),
    }
    for rows in (ROWS, ROWS[:64], *(ROWS[i : i + 1] for i in range(0, 150, 10))):
        for method, function in functions.items():
            expected, found = getattr(model, method)(rows), function(rows)
            assert found is not None
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_a_number_at_a_threshold_turns_where_scikit_learn_s_does() -> None:
    """Thresholds have more digits than the numbers that are compared with them."""
    rows = np.random.default_rng(0).normal(0, 1, (300, 1))
    model = RandomForestRegressor(5, random_state=0).fit(rows, np.arange(300.0))
    turns = np.concatenate([t.tree_.threshold[t.tree_.children_left >= 0] for t in model.estimators_])
    near = turns.astype(np.float32)
    at = np.concatenate([turns, near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))])
    found = compiling.compiled(model, signature.describe(model))["predict"](at[:, None])
    np.testing.assert_array_equal(found, model.predict(at[:, None]))


@pytest.mark.parametrize(
    "model", [GradientBoostingClassifier(init="zero", n_estimators=1), HistGradientBoostingClassifier(max_iter=1)]
)
def test_a_score_of_nothing_is_decided_as_scikit_learn_does(model: Any) -> None:
    """One kind of boosting takes the first class then, and the other the second."""
    model.fit(np.zeros((10, 4)), ["no", "yes"] * 5)
    assert model.decision_function(ROWS[:1]) == 0
    found = compiling.compiled(model, signature.describe(model))["predict"](ROWS[:1])
    np.testing.assert_array_equal(found, model.predict(ROWS[:1]))


def test_a_number_that_outgrows_one_step_is_refused_though_a_later_step_drops_it() -> None:
    selected = make_pipeline(StandardScaler(), SelectKBest(k=1), Ridge()).fit(ROWS * [1, 1, 1, 1e-150], LABELS)
    clipped = make_pipeline(StandardScaler(), MinMaxScaler(clip=True), Ridge()).fit(ROWS * [1, 1, 1, 1e-150], LABELS)
    for model in (selected, clipped):
        function = compiling.compiled(model, signature.describe(model))["predict"]
        large = np.array([[5.0, 3.0, 4.0, 1e200]])
        with pytest.raises(ValueError, match="infinity"):
            model.predict(large)
        with np.errstate(over="ignore"):
            assert function(large) is None


def thresholds(name: str) -> list[float]:
    """Numbers at which the model's trees turn, where they have some."""
    last = fitted(name)
    last = last.steps[-1][1] if hasattr(last, "steps") else last
    if hasattr(last, "_predictors"):
        nodes = [tree.nodes for round_ in last._predictors for tree in round_]
        return [float(t) for n in nodes for t in n["num_threshold"][n["is_leaf"] == 0]][:200]
    members = [last] if hasattr(last, "tree_") else np.asarray(getattr(last, "estimators_", []), dtype=object).flat
    return [float(t) for m in members for t in m.tree_.threshold[m.tree_.children_left >= 0]][:200]


def numbers(name: str) -> st.SearchStrategy[float]:
    usual = st.floats(-10, 10)
    odd = st.one_of(st.just(float("nan")), st.just(float("inf")), st.floats(width=64), st.sampled_from([1e39, -1e308]))
    turns = thresholds(name)
    if not turns:
        return st.one_of(usual, usual, usual, odd)
    at = st.sampled_from(turns)
    beside = st.builds(lambda t, to: float(np.nextafter(np.float32(t), np.float32(to))), at, st.sampled_from([-9, 99]))
    return st.one_of(usual, usual, at, at.map(lambda t: float(np.float32(t))), beside, odd)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_answers_and_refusals_are_the_same_with_compiling_as_without(name: str, data: st.DataObject) -> None:
    plain, compiled = predictors(name)
    methods = signature.describe(fitted(name)).methods
    row = st.lists(numbers(name), min_size=4, max_size=4)
    requests = [
        protocol.InferRequest(None, protocol.Rows(len(rows), matrix=np.array(rows)), tuple(wanted))
        for rows, wanted in data.draw(
            st.lists(
                st.tuples(
                    st.lists(row, min_size=1, max_size=3),
                    st.lists(st.sampled_from(methods), min_size=1, max_size=2, unique=True),
                ),
                min_size=1,
                max_size=3,
            )
        )
    ]
    for a, b in zip(plain.run(requests), compiled.run(requests), strict=True):
        assert same(a, b)


async def ask(client: httpx.AsyncClient, values: Any, shape: list[int]) -> tuple[int, Any]:
    """Sends numbers in binary, which unlike JSON can say infinity."""
    data = np.asarray(values, dtype="<f8").tobytes()
    tensor = {"name": "x", "datatype": "FP64", "shape": shape, "parameters": {"binary_data_size": len(data)}}
    head = httpx.Response(200, json={"inputs": [tensor]}).content
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = await client.post("/v2/models/m/infer", content=head + data, headers=headers)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("name", ["linear, texts", "forest, number", "histograms, two classes"])
async def test_over_http_each_mistake_has_the_answer_and_the_fault_that_it_has_without(name: str) -> None:
    model = fitted(name)
    compiled = spot_checks.Compiled(compiling.compiled(model, signature.describe(model)), EXACT, draw=lambda: 1.0)
    async with support.served(model) as without, support.served(model, compiled=compiled) as with_it:
        for values, shape in (
            ([1.0, 2.0, 3.0, 4.0], [1, 4]),
            ([1.0, float("nan"), 3.0, 4.0], [1, 4]),
            ([1.0, float("inf"), 3.0, 4.0], [1, 4]),
            ([1.0, 1e39, 3.0, 4.0], [1, 4]),
            ([1.0, 1e308, -1e308, 1e308], [1, 4]),
            ([1.0, 2.0, 3.0], [1, 3]),
            ([1.0, 2.0, 3.0, 4.0, 5.0], [1, 5]),
        ):
            assert await ask(with_it.client, values, shape) == await ask(without.client, values, shape)
        assert with_it.counted() == without.counted()
        assert with_it.counted()["client"] >= 2
        assert with_it.counted()["server"] == 0


class OwnRegression(LogisticRegression):  # type: ignore[misc]
    """May answer what it likes."""


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: KNeighborsClassifier().fit(ROWS, LABELS), "KNeighborsClassifier is not known"),
        (lambda: make_pipeline(KNeighborsClassifier()).fit(ROWS, LABELS), "KNeighborsClassifier is not known"),
        (lambda: make_pipeline(StandardScaler(), OwnRegression()).fit(ROWS, LABELS), "OwnRegression is not known"),
        (
            lambda: make_pipeline(ColumnTransformer([("a", StandardScaler(), [0])]), Ridge()).fit(ROWS, TARGET),
            "not all numbers in one array",
        ),
        (
            lambda: RandomForestClassifier(2).fit(ROWS, np.column_stack([LABELS, LABELS])),
            "more than one output is not known",
        ),
        (
            lambda: RidgeClassifier().fit(ROWS, np.eye(3, dtype=int)[LABELS]),
            "more than one output is not known",
        ),
        (
            lambda: GradientBoostingClassifier(init=LogisticRegression(max_iter=10_000), n_estimators=2).fit(
                ROWS, LABELS
            ),
            "starts from another model",
        ),
        (
            lambda: HistGradientBoostingClassifier(categorical_features=[0], max_iter=2).fit(ROWS.round(), LABELS),
            "over categories",
        ),
        (
            lambda: make_pipeline(SimpleImputer(add_indicator=True), Ridge()).fit(HOLES, TARGET),
            "SimpleImputer is known for",
        ),
        (lambda: StandardScaler().fit(ROWS), "StandardScaler is not known"),
    ],
)
def test_what_is_not_known_is_named_and_left_to_scikit_learn(model: Callable[[], Any], why: str) -> None:
    estimator = model()
    with pytest.raises(stages.NotCompilableError, match=why):
        compiling.compiled(estimator, signature.describe(estimator))


def test_a_forest_too_large_for_a_pod_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forests, "MAX_BYTES", 1000)
    model = fitted("forest, texts")
    with pytest.raises(stages.NotCompilableError, match="MiB"):
        compiling.compiled(model, signature.describe(model))


def test_many_rows_are_walked_piece_by_piece_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forests, "_MAX_WALKS", 50)
    model = fitted("forest, texts")
    found = compiling.compiled(model, signature.describe(model))["predict_proba"](ROWS)
    np.testing.assert_array_equal(found, model.predict_proba(ROWS))


def test_rows_of_another_width_than_a_tree_s_are_never_shown_to_it() -> None:
    """A crafted pipeline could hand it narrower rows, and scikit-learn's trees read past their end."""
    for name in ("tree", "forest, texts", "boosting, number", "histograms, texts"):
        model = fitted(name)
        for function in compiling.compiled(model, signature.describe(model)).values():
            assert function(ROWS[:, :2]) is None
