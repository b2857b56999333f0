"""Files whose types are trusted but whose arrays do not fit: refused by the loader, never called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.decomposition import PCA
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier
from tests.model_server import support

from kedge_server import failures, loading

ROWS, LABELS = support.IRIS, support.IRIS_LABELS
SPARSE_TYPES = ("scipy.sparse._csr.csr_matrix",)


def refusal(folder: Path, model: Any, trusted: tuple[str, ...] = ()) -> str:
    path = folder / "model.skops"
    skops.io.dump(model, path)
    with pytest.raises(failures.StartFailure) as caught:
        loading.load(path, None, trusted)
    assert caught.value.reason == failures.MODEL_FORMAT_REFUSED
    return caught.value.message


def loads(folder: Path, model: Any, trusted: tuple[str, ...] = ()) -> Any:
    path = folder / "model.skops"
    skops.io.dump(model, path)
    return loading.load(path, None, trusted).estimator


def with_attributes(fitted: Any, **attributes: Any) -> Any:
    model = copy.deepcopy(fitted)
    vars(model).update(attributes)
    return model


BOOSTED = GradientBoostingClassifier(n_estimators=3, init="zero").fit(ROWS, LABELS)


def test_boosting_with_more_trees_a_round_than_scores_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, with_attributes(BOOSTED, n_trees_per_iteration_=1, n_classes_=2))
    assert "GradientBoostingClassifier.estimators_ has 3 trees a round" in message


def test_boosting_that_starts_from_too_few_scores_is_refused(tmp_path: Path) -> None:
    model = GradientBoostingRegressor(n_estimators=3).fit(ROWS, LABELS)
    empty = with_attributes(DummyRegressor().fit(ROWS, LABELS), constant_=np.zeros((1, 0)), n_outputs_=0)
    assert "estimators_" in refusal(tmp_path, with_attributes(model, init_=empty))


def test_boosting_over_leaves_of_several_numbers_is_refused(tmp_path: Path) -> None:
    wide = DecisionTreeClassifier(max_depth=2).fit(ROWS, LABELS)
    model = with_attributes(BOOSTED)
    model.estimators_[1, 2].tree_ = wide.tree_
    assert "leaves are (1, 3)" in refusal(tmp_path, model)


def test_boosting_from_another_model_is_loaded(tmp_path: Path) -> None:
    model = GradientBoostingRegressor(n_estimators=3, init=LinearRegression()).fit(ROWS, LABELS)
    assert np.array_equal(loads(tmp_path, model).predict(ROWS), model.predict(ROWS))


def test_a_tree_whose_estimator_does_not_check_its_rows_is_refused(tmp_path: Path) -> None:
    model = make_pipeline(PCA(2), DecisionTreeClassifier(max_depth=2)).fit(ROWS, LABELS)
    model.steps[1] = ("tree", DecisionTreeClassifier(max_depth=2).fit(ROWS, LABELS))
    del model[-1].n_features_in_
    assert "DecisionTreeClassifier.n_features_in_" in refusal(tmp_path, model)
    model[-1].n_features_in_ = np.array([], dtype=int)
    assert "DecisionTreeClassifier.n_features_in_" in refusal(tmp_path, model)


def test_a_method_that_the_file_replaces_is_refused(tmp_path: Path) -> None:
    model = DecisionTreeClassifier(max_depth=2).fit(ROWS, LABELS)
    assert "_validate_X_predict" in refusal(tmp_path, with_attributes(model, _validate_X_predict=np.positive))


def test_a_tree_outside_of_any_model_is_refused(tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(max_depth=2).fit(ROWS, LABELS).tree_
    assert "tree" in refusal(tmp_path, with_attributes(LinearRegression().fit(ROWS, LABELS), extra=[tree]))


def test_members_in_a_tuple_are_checked_too(tmp_path: Path) -> None:
    model = RandomForestClassifier(3).fit(ROWS, LABELS)
    narrow = RandomForestClassifier(3).fit(ROWS[:, :2], LABELS)
    assert "member 0" in refusal(tmp_path, with_attributes(narrow, estimators_=tuple(model.estimators_)))


def test_isolation_trees_over_more_columns_than_they_would_be_given_are_refused(tmp_path: Path) -> None:
    model = IsolationForest(n_estimators=3).fit(ROWS)
    model.n_features_in_ = model._max_features = 2
    assert "member 0" in refusal(tmp_path, model)


def test_bagging_over_chosen_columns_is_loaded(tmp_path: Path) -> None:
    model = BaggingRegressor(n_estimators=3, max_features=2).fit(ROWS, LABELS)
    assert np.array_equal(loads(tmp_path, model).predict(ROWS), model.predict(ROWS))


CATEGORIES = ("functools.partial", "sklearn.utils.validation.check_array")


def by_category() -> Any:
    rows = np.column_stack((ROWS[:, 0], LABELS)).astype(float)
    return HistGradientBoostingClassifier(max_iter=3, categorical_features=[1]).fit(rows, LABELS)


def test_histogram_boosting_over_categories_is_loaded(tmp_path: Path) -> None:
    model = by_category()
    assert any(tree.nodes["is_categorical"].any() for round_ in model._predictors for tree in round_)
    assert loads(tmp_path, model, CATEGORIES).n_features_in_ == 2


def test_histogram_boosting_whose_bin_mapper_lacks_the_categories_is_refused(tmp_path: Path) -> None:
    model = by_category()
    model._bin_mapper.is_categorical_ = np.zeros(2, dtype=np.uint8)
    assert "is_categorical_" in refusal(tmp_path, model, CATEGORIES)


def test_histogram_boosting_whose_bitsets_are_too_short_is_refused(tmp_path: Path) -> None:
    model = by_category()
    for round_ in model._predictors:
        for tree in round_:
            tree.raw_left_cat_bitsets = tree.raw_left_cat_bitsets[:, :1].copy()
    assert "raw_left_cat_bitsets" in refusal(tmp_path, model, CATEGORIES)


def test_histogram_boosting_whose_encoder_drops_a_column_is_refused(tmp_path: Path) -> None:
    model = by_category()
    del model._preprocessor.transformers_[1]
    assert "_preprocessor" in refusal(tmp_path, model, CATEGORIES)


def test_a_sparse_matrix_whose_indices_lie_outside_of_it_is_refused(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(ROWS, LABELS).sparsify()
    model.coef_.indices = np.full_like(model.coef_.indices, 2**31 - 7)
    assert "csr_matrix cannot be checked" in refusal(tmp_path, model, SPARSE_TYPES)


SPARSE = scipy.sparse.csr_matrix(ROWS)
MACHINES = [
    SVC().fit(ROWS, LABELS),
    SVC(kernel="linear").fit(ROWS, LABELS == 1),
    SVC(kernel="precomputed").fit(ROWS @ ROWS.T, LABELS),
    NuSVC(nu=0.2).fit(SPARSE, LABELS),
    SVR().fit(ROWS, LABELS),
    SVR(epsilon=100.0).fit(SPARSE, LABELS),
    NuSVR().fit(SPARSE, LABELS),
    OneClassSVM(nu=0.2).fit(ROWS),
]


@pytest.mark.parametrize("model", MACHINES, ids=lambda m: type(m).__name__)
def test_support_vector_machines_are_loaded(tmp_path: Path, model: Any) -> None:
    rows = ROWS @ ROWS.T if model.kernel == "precomputed" else SPARSE if model._sparse else ROWS
    assert np.array_equal(loads(tmp_path, model, SPARSE_TYPES).predict(rows), model.predict(rows))


@pytest.mark.filterwarnings("ignore:.*probability:FutureWarning")
def test_a_calibrated_machine_is_loaded_and_one_that_lacks_the_calibration_is_refused(tmp_path: Path) -> None:
    model = SVC(probability=True).fit(ROWS, LABELS)
    assert np.array_equal(loads(tmp_path, model).predict_proba(ROWS), model.predict_proba(ROWS))
    assert "_probB" in refusal(tmp_path, with_attributes(model, _probB=np.zeros(1)))
    empty = np.zeros(0)
    assert "_probA" in refusal(tmp_path, with_attributes(model, _probA=empty, _probB=empty))


DENSE, PRECOMPUTED, ON_SPARSE = MACHINES[0], MACHINES[2], MACHINES[3]
MISFITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "_dual_coef_": (DENSE, {"_dual_coef_": DENSE._dual_coef_[:, :2].copy()}),
    "_dual_coef_ ": (MACHINES[4], {"_dual_coef_": np.zeros((1, 2))}),
    "_dual_coef_  ": (ON_SPARSE, {"_dual_coef_": ON_SPARSE._dual_coef_[:, :2].copy()}),
    "_n_support": (DENSE, {"_n_support": np.array([10**8] * 3, dtype=np.int32)}),
    "_n_support ": (DENSE, {"_n_support": np.array([-5, 5, len(DENSE.support_)], dtype=np.int32)}),
    "_intercept_": (DENSE, {"_intercept_": np.zeros(1)}),
    "_intercept_ ": (MACHINES[7], {"_intercept_": np.zeros(0)}),
    "support_": (PRECOMPUTED, {"support_": PRECOMPUTED.support_ + 10**6}),
    "support_vectors_": (DENSE, {"support_vectors_": DENSE.support_vectors_[:2].copy()}),
    "support_vectors_ ": (PRECOMPUTED, {"kernel": "rbf"}),
    "support_vectors_  ": (ON_SPARSE, {"support_vectors_": ON_SPARSE.support_vectors_[:2].copy()}),
    "kernel": (ON_SPARSE, {"kernel": "precomputed"}),
    "kernel ": (DENSE, {"kernel": np.add, "_BaseLibSVM__Xfit": ROWS}),
    "_sparse_kernels": (ON_SPARSE, {"_sparse_kernels": ["", "", "", "", "rbf"]}),
}


@pytest.mark.parametrize(("attribute", "case"), MISFITS.items(), ids=MISFITS)
def test_a_machine_one_of_whose_arrays_does_not_fit_is_refused(
    tmp_path: Path, attribute: str, case: tuple[Any, dict[str, Any]]
) -> None:
    model, changes = case
    message = refusal(tmp_path, with_attributes(model, **changes), SPARSE_TYPES)
    assert f"{type(model).__name__}.{attribute.strip()} " in message
