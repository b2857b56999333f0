from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.model_server import support

from kedge_server import loading, packing, profiles, protocol, proving, quality, signature
from kedge_server.settings import Settings

FRAME = pd.DataFrame({"age": np.arange(100.0), "city": ["Oslo", "Rome"] * 50})
LABELS = ["stay", "leave"] * 50


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> loading.LoadedModel:
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    model = make_pipeline(columns, LogisticRegression()).fit(FRAME, LABELS)
    out = tmp_path_factory.mktemp("packed") / "p"
    packing.package(model, FRAME, out, name="m")
    return proving.load_and_prove(Settings(model_name="m", model_path=out))[0]


def samples(server: support.Served) -> dict[tuple[str, ...], float]:
    page = server.metrics.render().decode()
    return {
        (s.name, *(v for k, v in sorted(s.labels.items(), reverse=True) if k != "model")): s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
        if s.name.removeprefix("kedge_server_").startswith(("feature", "invalid", "prediction"))
    }


async def ask(server: support.Served, ages: list[Any], cities: list[Any]) -> int:
    body = support.infer_body(support.tensor(ages, name="age"), support.tensor(cities, name="city", datatype="BYTES"))
    return (await server.infer(body)).status_code


async def test_live_rows_are_counted_over_the_reference_s_bins(packed: loading.LoadedModel) -> None:
    async with support.served(packed) as server:
        assert await ask(server, [0.0, 50.0, 99.0, 200.0, -1.0], ["Oslo"] * 5) == 200
        assert await ask(server, [5.0], ["Paris"]) == 500
        found = samples(server)
        name = "kedge_server_feature_bin_total"
        assert found[name, "age", "0.0"] == 1
        assert found[name, "age", "+Inf"] == 1
        assert sum(v for k, v in found.items() if k[:2] == (name, "age")) == 6
        assert found[name, "city", "Oslo"] == 5
        assert found[name, "city", "__new__"] == 1
        assert found["kedge_server_feature_out_of_range_total", "age"] == 2
        assert found["kedge_server_feature_new_category_total", "city"] == 1
        assert found["kedge_server_feature_missing_total", "age"] == 0
        assert found["kedge_server_invalid_rows_total",] == 3
        outputs = {k[2]: v for k, v in found.items() if k[:2] == ("kedge_server_prediction_bin_total", "predict")}
        assert sum(outputs.values()) == 5


async def test_the_reference_s_own_counts_are_shown_beside(packed: loading.LoadedModel) -> None:
    async with support.served(packed) as server:
        found = samples(server)
        for prefix, name in (("feature", "age"), ("feature", "city"), ("prediction", "predict")):
            key = f"kedge_server_{prefix}_reference_rows"
            assert sum(v for k, v in found.items() if k[:2] == (key, name)) == 100
        assert found["kedge_server_feature_reference_rows", "city", "Rome"] == 50


async def test_serving_the_reference_reproduces_its_profile(packed: loading.LoadedModel) -> None:
    async with support.served(packed) as server:
        assert await ask(server, FRAME["age"].tolist(), FRAME["city"].tolist()) == 200
        found = samples(server)
        for key, value in found.items():
            if key[0] == "kedge_server_feature_reference_rows":
                assert found["kedge_server_feature_bin_total", *key[1:]] == value


async def test_without_a_reference_no_number_is_out_of_range_and_every_string_is_new(tmp_path: Path) -> None:
    columns = [("n", SimpleImputer(), ["age"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    model = make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(FRAME, LABELS)
    packing.package(model, FRAME.assign(age=np.nan, city=None), tmp_path / "p", name="m")
    loaded = proving.load_and_prove(Settings(model_name="m", model_path=tmp_path / "p"))[0]
    assert [c.kind for c in loaded.signature.columns] == [signature.Kind.NUMBER, signature.Kind.STRING]
    async with support.served(loaded) as server:
        assert await ask(server, [0.0, 1e300, -1.0], ["Oslo", "", "Bern"]) == 200
        found = samples(server)
        assert found["kedge_server_feature_out_of_range_total", "age"] == 0
        assert found["kedge_server_feature_missing_total", "age"] == 0
        assert found["kedge_server_feature_new_category_total", "city"] == 3
        assert found["kedge_server_feature_missing_total", "city"] == 0
        assert found["kedge_server_feature_bin_total", "age", "+Inf"] == 3
        assert found["kedge_server_feature_bin_total", "city", "__new__"] == 3
        assert found["kedge_server_feature_reference_rows", "city", "__missing__"] == 100


def wide_counting(further: bool) -> dict[tuple[str, str], int]:
    """Counts four rows of a number more than have bins, and of a string; returns what is told of features."""
    width = profiles.MAX_FEATURES + 1
    names = [f"x{i}" for i in range(width)] + ["city"]
    cities = np.array(["Oslo", "Rome"] * 5, dtype=object)
    features, rest = profiles.of_features(names, [*np.tile(np.arange(10.0), (width, 1)), cities])
    profile = profiles.Profile(10, features, (), further=rest if further else ())
    kinds = [signature.Kind.NUMBER] * width + [signature.Kind.STRING]
    columns = tuple(signature.Column(name, kind) for name, kind in zip(names, kinds, strict=True))
    described = signature.Signature(signature.Layout.FRAME, columns, width + 1, named=True, methods=("predict",))
    counting = quality.Quality(profile, described)
    live = [np.ones(4)] * (width - 1) + [np.array([0.0, 9.5, -1.0, np.nan]), np.array(["Rome", "Bern", None, "Oslo"])]
    counting.remember(protocol.Rows(4, columns=tuple(live)), [])
    return {
        (name.removeprefix("kedge_server_"), labels.get("feature", "")): count
        for name, _, _, found in counting.families()
        for labels, count in found
        if "bin" not in labels and labels.get("feature") in (None, "x0", "__other__")
    }


def test_features_beyond_those_with_bins_are_counted_together() -> None:
    assert wide_counting(further=True) == {
        ("feature_missing_total", "x0"): 0,
        ("feature_missing_total", "__other__"): 2,
        ("feature_out_of_range_total", "x0"): 0,
        ("feature_out_of_range_total", "__other__"): 2,
        ("feature_new_category_total", "__other__"): 1,
        ("invalid_rows_total", ""): 2,
    }


def test_an_older_package_tells_only_which_of_them_are_missing() -> None:
    assert wide_counting(further=False) == {
        ("feature_missing_total", "x0"): 0,
        ("feature_missing_total", "__other__"): 2,
        ("feature_out_of_range_total", "x0"): 0,
        ("invalid_rows_total", ""): 0,
    }


async def test_a_page_for_fast_polling_leaves_the_bins_out(packed: loading.LoadedModel) -> None:
    async with support.served(packed) as server:
        page = server.metrics.render(["kedge_server_requests_total", "kedge_server_invalid_rows_total"]).decode()
        assert "feature_bin" not in page
        assert "kedge_server_invalid_rows_total" in page


VALUES = st.one_of(st.sampled_from([0.0, 1.0, 2.5, 10.0, -1e300, 1e300, float("nan")]), st.floats())


@settings(max_examples=60, deadline=None)
@given(
    reference=st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=30),
    live=st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=30),
    cuts=st.lists(st.integers(1, 5), max_size=6),
)
def test_counting_together_gives_what_counting_each_feature_alone_does(
    reference: list[list[float]], live: list[list[float]], cuts: list[int]
) -> None:
    trained, rows = np.array(reference), np.array(live)
    names = ["a", "b", "c"]
    profile = profiles.Profile(len(trained), profiles.of_features(names, list(trained.T))[0], ())
    columns = tuple(signature.Column(n, signature.Kind.NUMBER) for n in names)
    described = signature.Signature(signature.Layout.MATRIX, columns, 3, named=True, methods=("predict",))
    counting = quality.Quality(profile, described)
    rest = rows
    for cut in [*cuts, len(rows)]:
        part, rest = rest[:cut], rest[cut:]
        if len(part):
            counting.remember(protocol.Rows(len(part), matrix=part), [])
    (found,) = [s for name, _, _, s in counting.families() if name == "kedge_server_feature_bin_total"]
    expected = [
        ({"feature": bins.name, "bin": label}, count)
        for bins, values in zip(profile.features, rows.T, strict=True)
        for label, count in zip(bins.labels, profiles.count(bins, values).tolist(), strict=True)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("reference", "one", "other"),
    [
        ([0.0, 1.0] * 50, 0.0, 1.0),
        ([0.0] * 20 + [1.0, 2.0, 3.0, 4.0] * 20, 0.0, 1.0),
        ([0.0] * 30 + list(np.linspace(0.5, 9.0, 70)), 0.0, 0.5),
        ([-3.0] * 90 + [7.0] * 10, -3.0, 7.0),
    ],
    ids=["a flag", "few whole numbers", "many zeros", "hardly ever another value"],
)
def test_a_frequent_minimum_has_a_bin_of_its_own(reference: list[float], one: float, other: float) -> None:
    bins = profiles.measure("a", np.array(reference))
    first, second = profiles.place(bins, np.array([one, other])).tolist()
    assert first != second
    assert bins.counts[first] == reference.count(one)
    assert profiles.Bins.from_json(bins.to_json()) == bins


def test_a_feature_with_an_identifier_a_row_has_nothing_new_and_does_not_fill_the_profile() -> None:
    identifiers = np.array([f"customer-{i}" for i in range(20_000)], dtype=object)
    bins = profiles.measure("id", identifiers)
    assert bins.others == ()
    assert profiles.Bins.from_json(bins.to_json()) == bins
    there, unseen, missing = profiles.place(bins, np.array(["customer-19999", "nobody", None], dtype=object)).tolist()
    assert (bins.labels[there], bins.labels[unseen]) == ("__other__", "__other__")
    assert bins.labels[missing] == "__missing__"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["features"].append(d["features"][0]), "one feature twice"),
        (lambda d: d["outputs"].append(d["outputs"][0]), "one output twice"),
        (lambda d: d["features"][0].update(counts=(-1, 1, 1, 1, 0, 1)), "below 0"),
        (lambda d: d["outputs"].extend({**d["outputs"][0], "name": str(i)} for i in range(50)), "51 outputs"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(change: Any, says: str) -> None:
    bins = profiles.measure("a", np.array([1.0, 2.0, 3.0]))
    document = profiles.Profile(3, (bins,), (bins,)).to_json()
    assert profiles.Profile.from_json(document).features == (bins,)
    change(document)
    with pytest.raises(ValueError, match=says):
        profiles.Profile.from_json(document)


def test_memory_stays_bounded_between_two_scrapes(tmp_path: Path) -> None:
    profile = profiles.Profile(3, profiles.of_features(["a"], [np.arange(3.0)])[0], ())
    columns = (signature.Column("a", signature.Kind.NUMBER),)
    described = signature.Signature(signature.Layout.MATRIX, columns, 1, named=True, methods=("predict",))
    counting = quality.Quality(profile, described)
    row = protocol.Rows(1, matrix=np.zeros((1, 1)))
    for _ in range(3 * quality.BLOCK_ROWS):
        counting.remember(row, [])
        assert len(counting._pending) < quality.BLOCK_ROWS


@pytest.mark.parametrize("by_column", [True, False])
def test_long_strings_do_not_pile_up_between_two_scrapes(*, by_column: bool) -> None:
    bins = profiles.measure("a", np.array(["Oslo", "Rome"], dtype=object))
    columns = (signature.Column("a", signature.Kind.STRING),)
    layout = signature.Layout.FRAME if by_column else signature.Layout.MATRIX
    described = signature.Signature(layout, columns, 1, named=True, methods=("predict",))
    counting = quality.Quality(profiles.Profile(2, (bins,), ()), described)
    long = np.array(["x" * 300_000], dtype=object)
    rows = protocol.Rows(1, columns=(long,)) if by_column else protocol.Rows(1, matrix=long.reshape(1, 1))
    for _ in range(20):
        counting.remember(rows, [])
        assert len(counting._pending) < 4
    (found,) = [s for name, _, _, s in counting.families() if name == "kedge_server_feature_new_category_total"]
    assert [count for _, count in found] == [20]


def test_a_server_counts_no_data_when_it_is_told_not_to(tmp_path: Path) -> None:
    packing.package(support.iris_model(), support.IRIS, tmp_path / "p", name="m")
    for choice, there in (("true", True), ("false", False)):
        with support.process("--model-path", str(tmp_path / "p"), "--count-data", choice) as server:
            assert httpx.post(f"{server.url}/v2/models/m/infer", json=support.iris_body()).status_code == 200
            assert ("kedge_server_feature_bin_total" in httpx.get(f"{server.url}/metrics").text) is there
