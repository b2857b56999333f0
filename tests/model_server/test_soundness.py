"""Files whose types are trusted but whose arrays do not fit: refused by the loader, never called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from tests.model_server import support

from kedge_server import failures, loading

ROWS, LABELS = support.IRIS, support.IRIS_LABELS


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
