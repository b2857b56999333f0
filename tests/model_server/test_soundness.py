"""Files whose types are trusted but whose arrays do not fit: refused by the loader, never called."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import scipy.sparse
import skops.io
from sklearn.cluster import Birch, BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, PolynomialFeatures, StandardScaler, TargetEncoder
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier
from tests.model_server import support

from kedge_server import failures, loading, soundness

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


def test_objects_that_have_methods_of_their_own_under_an_estimator_s_names_are_sound() -> None:
    assert soundness.check(TunedThresholdClassifierCV(LogisticRegression(max_iter=500)).fit(ROWS, LABELS == 1)) == 0


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


def test_histogram_boosting_over_texts_with_gaps_is_loaded(tmp_path: Path) -> None:
    texts = pd.Categorical(np.array(["Oslo", "Rome", None], dtype=object)[LABELS])
    frame = pd.DataFrame({"width": ROWS[:, 0], "city": texts})
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features=[1]).fit(frame, LABELS)
    assert np.array_equal(loads(tmp_path, model, CATEGORIES).predict(frame), model.predict(frame))


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


def test_sparse_pointers_that_go_back_are_refused(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(ROWS, LABELS)
    model.coef_ = scipy.sparse.csr_matrix((3, 4))
    model.coef_.indptr[1] = 10**6
    assert "csr_matrix.indptr goes back" in refusal(tmp_path, model, SPARSE_TYPES)


def disguise(folder: Path, model: Any, attribute: str | None, kind: type) -> Path:
    """Writes a file in which the model, or an attribute of it, bears the name of another type."""
    honest, disguised = folder / "honest.skops", folder / "model.skops"
    skops.io.dump(model, honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(disguised, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                renamed = schema if attribute is None else schema["content"]["content"][attribute]
                renamed["__class__"], renamed["__module__"] = kind.__name__, kind.__module__
                content = json.dumps(schema).encode()
            target.writestr(name, content)
    return disguised


def test_a_sparse_matrix_under_the_name_that_skops_trusts_is_checked_too(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(ROWS, LABELS)
    model.coef_ = scipy.sparse.csr_matrix((3, 4))
    model.coef_.indptr[1] = 10**6
    with pytest.raises(failures.StartFailure, match=r"csr_matrix.indptr goes back"):
        loading.load(disguise(tmp_path, model, "coef_", scipy.sparse.spmatrix))


def test_birch_which_skops_reads_but_does_not_write_is_checked_too(tmp_path: Path) -> None:
    fitted = Birch(n_clusters=None).fit(ROWS)
    keep = ("subcluster_centers_", "_subcluster_norms", "subcluster_labels_", "n_features_in_", "compute_labels")
    model = with_attributes(StandardScaler(), **{name: vars(fitted)[name] for name in keep})
    path = disguise(tmp_path, model, None, Birch)
    assert np.array_equal(loading.load(path).estimator.predict(ROWS), fitted.predict(ROWS))
    model._subcluster_norms = np.zeros(1)
    with pytest.raises(failures.StartFailure, match=r"Birch._subcluster_norms"):
        loading.load(disguise(tmp_path, model, None, Birch))


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


def test_a_machine_as_earlier_versions_write_it_is_loaded(tmp_path: Path) -> None:
    model = with_attributes(MACHINES[0], probability=False)
    vars(model).pop("_effective_probability", None)
    assert type(loads(tmp_path, model)) is SVC


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


CLUSTERS = KMeans(3, n_init=1, random_state=0).fit(ROWS)
TREE_OF_CLUSTERS = BisectingKMeans(3, random_state=0).fit(ROWS)
BISECTING_TYPES = ("sklearn.cluster._bisect_k_means._BisectingTree", "sklearn.cluster._kmeans._kmeans_single_lloyd")
BRUTE = KNeighborsClassifier(algorithm="brute").fit(ROWS, LABELS)
AROUND = RadiusNeighborsClassifier(algorithm="brute").fit(ROWS, LABELS)
OUTLIERS = LocalOutlierFactor(algorithm="brute", novelty=True).fit(ROWS)
WORDS = CountVectorizer().fit(["red green", "green blue"])
WEIGHED = TfidfVectorizer().fit(["red green", "green blue"])
COLOURS = np.array([["red"], ["red"], ["green"], ["blue"]], dtype=object)
ENCODER = OneHotEncoder().fit(COLOURS)
DROPPING = OneHotEncoder(drop="first").fit(COLOURS)
GROUPING = OneHotEncoder(max_categories=2, handle_unknown="infrequent_if_exist").fit(COLOURS)
NUMBERS = OneHotEncoder(sparse_output=False).fit(np.array([[1.0, 4.0], [3.0, np.nan], [2.0, 4.0]]))
POWERS = PolynomialFeatures((2, 3), interaction_only=True).fit(ROWS)
AVERAGES = TargetEncoder().fit(ROWS.round(), LABELS)


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (CLUSTERS, ROWS),
        (MiniBatchKMeans(3, n_init=1).fit(ROWS), ROWS),
        (TREE_OF_CLUSTERS, ROWS),
        (BRUTE, ROWS),
        (AROUND, ROWS),
        (OUTLIERS, ROWS),
        (WORDS, ["red blue blue"]),
        (WEIGHED, ["red blue blue"]),
        (HashingVectorizer(n_features=16), ["red blue blue"]),
        (ENCODER, COLOURS),
        (DROPPING, COLOURS),
        (GROUPING, COLOURS),
        (OneHotEncoder(drop="if_binary").fit(COLOURS), COLOURS),
        (OneHotEncoder(max_categories=2, drop="first").fit(COLOURS), COLOURS),
        (NUMBERS, np.array([[1.0, np.nan]])),
        (POWERS, ROWS),
        (PolynomialFeatures(2, include_bias=False).fit(ROWS), ROWS),
        (AVERAGES, ROWS),
        (TargetEncoder().fit(ROWS.round(), LABELS == 1), ROWS),
        (KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf").fit(ROWS), ROWS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_looks_up_inside_its_tables_is_loaded(tmp_path: Path, model: Any, rows: Any) -> None:
    loaded = loads(tmp_path, model, (*BISECTING_TYPES, "numpy.dtype"))
    method = "transform" if hasattr(model, "transform") else "predict"
    expected, found = getattr(model, method)(rows), getattr(loaded, method)(rows)
    np.testing.assert_array_equal(*(x.toarray() if scipy.sparse.issparse(x) else x for x in (expected, found)))


def split_on_two_columns() -> Any:
    tree = copy.deepcopy(TREE_OF_CLUSTERS._bisecting_tree)
    tree.left.center = tree.left.center[:2].copy()
    return tree


WRONG_TABLES: list[tuple[Any, str, dict[str, Any]]] = [
    (CLUSTERS, "cluster_centers_", {"cluster_centers_": CLUSTERS.cluster_centers_[:, :1].copy()}),
    (CLUSTERS, "cluster_centers_", {"cluster_centers_": np.zeros((0, 4))}),
    (TREE_OF_CLUSTERS, "_bisecting_tree", {"_bisecting_tree": split_on_two_columns()}),
    (TREE_OF_CLUSTERS, "_bisecting_tree", {"_bisecting_tree": CLUSTERS}),
    (BRUTE, "_fit_X", {"_fit_X": BRUTE._fit_X[:, :1].copy()}),
    (BRUTE, "_fit_X", {"n_samples_fit_": 10**9}),
    (BRUTE, "_y", {"_y": BRUTE._y + 10**6}),
    (BRUTE, "_y", {"_y": BRUTE._y[:2].copy()}),
    (BRUTE, "effective_metric_params_", {"effective_metric_params_": {"Y_norm_squared": np.zeros(1)}}),
    (AROUND, "_y", {"_y": AROUND._y - 10**6}),
    (OUTLIERS, "_fit_X", {"_fit_X": OUTLIERS._fit_X[:, :1].copy()}),
    (WORDS, "vocabulary_", {"vocabulary_": {"red": 0, "green": 10**9}}),
    (WEIGHED, "vocabulary_", {"vocabulary_": {"red": 0, "green": -1}}),
    (HashingVectorizer(), "n_features", {"n_features": 0}),
    (ENCODER, "_n_features_outs", {"_n_features_outs": [1]}),
    (ENCODER, "_n_features_outs", {"_n_features_outs": np.array([3])}),
    (DROPPING, "_n_features_outs", {"_drop_idx_after_grouping": np.array([-1], dtype=object)}),
    (DROPPING, "_n_features_outs", {"_drop_idx_after_grouping": np.array([7], dtype=object)}),
    (GROUPING, "_n_features_outs", {"_default_to_infrequent_mappings": [np.array([0, 1, 10**6])]}),
    (GROUPING, "_infrequent_indices", {"_default_to_infrequent_mappings": [None]}),
    (POWERS, "_n_out_full", {"_n_out_full": 10**6}),
    (AVERAGES, "encodings_", {"encodings_": AVERAGES.encodings_[:2]}),
    (NUMBERS, "categories_", {"categories_": [np.array([3.0, 2.0, 1.0]), NUMBERS.categories_[1]]}),
]


@pytest.mark.parametrize(
    ("model", "attribute", "changes"), WRONG_TABLES, ids=[f"{type(m).__name__}-{name}" for m, name, _ in WRONG_TABLES]
)
def test_what_would_look_up_outside_of_its_tables_is_refused(
    tmp_path: Path, model: Any, attribute: str, changes: dict[str, Any]
) -> None:
    message = refusal(tmp_path, with_attributes(model, **changes), BISECTING_TYPES)
    assert f"{type(model).__name__}.{attribute} " in message


def test_a_random_generator_that_would_go_on_outside_of_its_words_is_refused(tmp_path: Path) -> None:
    generator = np.random.RandomState(0)
    model = DummyClassifier(strategy="stratified", random_state=generator).fit(ROWS, LABELS)
    assert loads(tmp_path, model).predict(ROWS).shape == LABELS.shape
    state = generator.get_state(legacy=False)
    state["state"]["pos"] = 10**6
    generator.set_state(state)
    assert "RandomState.pos is 1000000" in refusal(tmp_path, model)
