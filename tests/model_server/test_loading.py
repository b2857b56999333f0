from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from tests.model_server import support

from kedge_server import failures, loading, predicting, proving, signature, soundness


def refused(path: Path, *arguments: Any) -> failures.StartFailure:
    with pytest.raises(failures.StartFailure) as caught:
        loading.load(path, *arguments)
    assert "\n" not in caught.value.message
    return caught.value


def dump(model: Any, folder: Path) -> Path:
    path = folder / "model.skops"
    skops.io.dump(model, path)
    return path


def test_loads_a_model_whose_digest_is_right(iris_file: Path) -> None:
    digest = hashlib.sha256(iris_file.read_bytes()).hexdigest()
    model = loading.load(iris_file, digest.upper())
    assert model.digest == digest
    assert model.signature.width == 4


def test_a_wrong_digest_is_found_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(b"anything")
    monkeypatch.setattr(loading, "_load_skops", lambda *_: pytest.fail("it was loaded"))
    failure = refused(path, "0" * 64)
    assert failure.reason == failures.MODEL_DIGEST_MISMATCH
    assert hashlib.sha256(b"anything").hexdigest() in failure.message


def test_a_missing_file_is_a_failed_fetch(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").reason == failures.MODEL_FETCH_FAILED


class Bomb:
    """Leaves a mark when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("save", [lambda o, p: p.write_bytes(pickle.dumps(o)), joblib.dump], ids=["pickle", "joblib"])
def test_pickle_and_joblib_are_refused_unread(tmp_path: Path, save: Any) -> None:
    path, mark = tmp_path / "model.skops", tmp_path / "mark"
    save(Bomb(mark), path)
    failure = refused(path)
    assert failure.reason == failures.MODEL_FORMAT_REFUSED
    assert "skops.io.dump" in failure.message
    assert not mark.exists()


def test_another_zip_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    assert refused(tmp_path / "arrays.npz").reason == failures.MODEL_FORMAT_REFUSED


def test_a_file_that_was_cut_off_is_not_loaded(tmp_path: Path, iris_file: Path) -> None:
    path = tmp_path / "half.skops"
    path.write_bytes(iris_file.read_bytes()[:9000])
    assert refused(path).reason == failures.MODEL_LOAD_FAILED


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path, iris_file: Path) -> None:
    path = tmp_path / "bomb.skops"
    path.write_bytes(iris_file.read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(20_000_000))
    failure = refused(path)
    assert failure.reason == failures.MODEL_FORMAT_REFUSED
    assert "expand" in failure.message


def test_a_matrix_inside_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    model = StandardScaler().fit(support.IRIS)
    model.extra_ = scipy.sparse.csr_matrix((np.zeros(1), np.zeros(1, dtype=int), np.array([0, 1])), shape=(1, 1))
    model.extra_.data = np.zeros(2_000_000)
    failure = refused(dump(model, tmp_path), None, ("scipy.sparse._csr.csr_matrix",))
    assert "expand" in failure.message


class Custom(LogisticRegression):  # type: ignore[misc]
    """A type that skops has no reason to trust."""


def test_an_untrusted_type_is_named_and_can_be_trusted(tmp_path: Path) -> None:
    path = dump(Custom(max_iter=500).fit(support.IRIS, support.IRIS_LABELS), tmp_path)
    name = f"{Custom.__module__}.Custom"
    failure = refused(path)
    assert failure.reason == failures.MODEL_FORMAT_REFUSED
    assert name in failure.message
    assert "--trusted-type" in failure.message
    assert type(loading.load(path, None, (name,)).estimator) is Custom


def test_another_scikit_learn_is_skew_that_names_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.base.__version__", "1.2.3")
        path = dump(StandardScaler().fit(support.IRIS), tmp_path)
    failure = refused(path)
    assert failure.reason == failures.LIBRARY_VERSION_SKEW
    assert "1.2.3" in failure.message
    assert sklearn.__version__ in failure.message


@pytest.mark.parametrize("thing", [{"weights": [1, 2]}, StandardScaler(), np.zeros(3)])
def test_what_is_not_a_fitted_model_is_not_served(tmp_path: Path, thing: Any) -> None:
    assert refused(dump(thing, tmp_path)).reason == failures.MODEL_LOAD_FAILED


FORESTS = [
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(5, random_state=0),
    ExtraTreesRegressor(5, random_state=0),
    GradientBoostingClassifier(n_estimators=5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5),
    IsolationForest(n_estimators=5, max_features=2, random_state=0),
    make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
]


@pytest.mark.parametrize("model", FORESTS, ids=lambda m: type(m).__name__)
def test_trees_are_loaded_after_their_nodes_were_checked(tmp_path: Path, model: Any) -> None:
    model.fit(support.IRIS, support.IRIS_LABELS)
    loaded = loading.load(dump(model, tmp_path)).estimator
    assert np.array_equal(loaded.predict(support.IRIS), model.predict(support.IRIS))
    assert soundness.check(loaded) >= 1


@pytest.mark.parametrize(
    "model",
    [
        CalibratedClassifierCV(GaussianNB()),
        make_pipeline(SimpleImputer(), SelectKBest(k=2), GaussianProcessClassifier()),
        make_pipeline(StandardScaler(), MLPClassifier(max_iter=2000, random_state=0)),
    ],
    ids=["calibrated", "selected", "network"],
)
def test_common_estimators_need_no_flag(tmp_path: Path, model: Any) -> None:
    model.fit(support.IRIS, support.IRIS_LABELS)
    loaded = loading.load(dump(model, tmp_path)).estimator
    assert np.array_equal(loaded.predict(support.IRIS), model.predict(support.IRIS))


def test_types_that_compiled_code_follows_blindly_need_one(tmp_path: Path) -> None:
    failure = refused(dump(KNeighborsClassifier().fit(support.IRIS, support.IRIS_LABELS), tmp_path))
    assert failure.reason == failures.MODEL_FORMAT_REFUSED
    assert "KDTree" in failure.message


@pytest.mark.parametrize(
    ("field", "value"),
    [("left_child", 10_000), ("left_child", 0), ("right_child", -2), ("feature", 99), ("feature", -3)],
)
def test_a_tree_that_points_outside_itself_is_refused(tmp_path: Path, field: str, value: int) -> None:
    model = RandomForestClassifier(3, random_state=0).fit(support.IRIS, support.IRIS_LABELS)
    tree = model.estimators_[1].tree_
    state = tree.__getstate__()
    inner = np.flatnonzero(state["nodes"]["left_child"] != -1)[-1]
    state["nodes"][field][inner] = value
    tree.__setstate__(state)
    failure = refused(dump(model, tmp_path))
    assert failure.reason == failures.MODEL_FORMAT_REFUSED
    assert "tree" in failure.message


@pytest.mark.parametrize("field", ["left", "right", "feature_idx"])
def test_a_boosted_tree_that_points_outside_itself_is_refused(tmp_path: Path, field: str) -> None:
    model = HistGradientBoostingClassifier(max_iter=2).fit(support.IRIS, support.IRIS_LABELS)
    nodes = model._predictors[1][0].nodes
    nodes[field][0] = 30_000
    assert refused(dump(model, tmp_path)).reason == failures.MODEL_FORMAT_REFUSED


def test_a_tree_whose_estimator_claims_fewer_features_is_refused(tmp_path: Path) -> None:
    model = RandomForestClassifier(3, random_state=0).fit(support.IRIS, support.IRIS_LABELS)
    model.n_features_in_ = 2
    assert refused(dump(model, tmp_path)).reason == failures.MODEL_FORMAT_REFUSED


def forest() -> Any:
    return RandomForestClassifier(3, n_jobs=-1, random_state=0)


LABEL_PAIRS = np.column_stack((support.IRIS_LABELS, support.IRIS_LABELS == 1))


@pytest.mark.parametrize(
    ("model", "labels", "fitted"),
    [
        (make_pipeline(StandardScaler(), forest()), support.IRIS_LABELS, lambda m: [m[-1]]),
        (MultiOutputClassifier(forest()), LABEL_PAIRS, lambda m: m.estimators_),
        (ClassifierChain(forest()), LABEL_PAIRS, lambda m: m.estimators_),
        (BaggingClassifier(forest(), n_estimators=2), support.IRIS_LABELS, lambda m: m.estimators_),
        (
            CalibratedClassifierCV(forest(), cv=2),
            support.IRIS_LABELS,
            lambda m: [member.estimator for member in m.calibrated_classifiers_],
        ),
        (GridSearchCV(forest(), {"max_depth": [2]}, cv=2), support.IRIS_LABELS, lambda m: [m.best_estimator_]),
        (StackingClassifier([("f", forest())], cv=2), support.IRIS_LABELS, lambda m: m.estimators_),
        (
            TransformedTargetRegressor(ExtraTreesRegressor(3, n_jobs=-1)),
            support.IRIS_LABELS,
            lambda m: [m.regressor_],
        ),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "get_params") else "",
)
def test_parallel_jobs_saved_in_a_model_are_set_to_one(
    tmp_path: Path, model: Any, labels: Any, fitted: Callable[[Any], Any]
) -> None:
    model.fit(support.IRIS, labels)
    trusted = (
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.utils._bunch.Bunch",
    )
    loaded = loading.load(dump(model, tmp_path), None, trusted).estimator
    assert {part.n_jobs for part in fitted(loaded)} == {1}


def test_threads_that_k_means_was_trained_with_are_set_to_one(tmp_path: Path) -> None:
    model = KMeans(3, n_init=1, random_state=0).fit(support.IRIS)
    model._n_threads = 64
    assert loading.load(dump(model, tmp_path)).estimator._n_threads == 1


def warm_up(model: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    described = signature.describe(model)
    outputs = proving.warm_up(predicting.Predictor(model, described), described)
    return {output.name: (output.datatype, output.shape) for output in outputs}


def test_warm_up_uses_categories_that_the_model_knows(churn: Any) -> None:
    columns = signature.describe(churn).columns
    assert [(c.name, c.kind, c.example) for c in columns] == [
        ("age", signature.Kind.NUMBER, 0.0),
        ("city", signature.Kind.STRING, "Oslo"),
    ]
    assert warm_up(churn)["predict"] == ("BYTES", ())


def test_warm_up_learns_what_the_outputs_look_like(iris: Any) -> None:
    assert warm_up(iris) == {
        "predict": ("INT64", ()),
        "predict_proba": ("FP64", (3,)),
        "decision_function": ("FP64", (3,)),
    }


def test_warm_up_does_not_reject_a_model_that_zeros_do_not_suit() -> None:
    warm_up(PowerTransformer(method="box-cox").fit(support.IRIS + 1.0))


def test_warm_up_rejects_a_model_that_cannot_predict(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = make_pipeline(StandardScaler(), LogisticRegression()).fit(support.IRIS, support.IRIS_LABELS)
    del broken[-1].coef_
    monkeypatch.setattr("sklearn.linear_model._base.check_is_fitted", lambda *_: None)
    with pytest.raises(failures.StartFailure) as caught:
        warm_up(broken)
    assert caught.value.reason == failures.WARM_UP_FAILED
