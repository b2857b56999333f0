from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.model_server import support

from kedge_server import cli, failures, fetching, loading, packages, packing, profiles, proving
from kedge_server.settings import Settings

FRAME = pd.DataFrame(
    {
        "age": [20.0, 30.0, None, 50.0] * 25,
        "income": np.linspace(1, 100, 100),
        "city": (["Oslo"] * 60 + ["Rome"] * 39 + ["Bonn"]),
    }
)


def frame_model() -> Any:
    columns = ColumnTransformer(
        [
            ("a", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("i", StandardScaler(), ["income"]),
            ("c", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ]
    )
    return make_pipeline(columns, LinearRegression()).fit(FRAME, np.arange(100.0))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("packed") / "package"
    return out, packing.package(frame_model(), FRAME, out, name="income", version="3")


def copy(packed: tuple[Path, str], target: Path) -> Path:
    target.mkdir()
    for file in packed[0].iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def prove(path: Path, **changes: Any) -> loading.LoadedModel:
    return proving.load_and_prove(Settings(model_name="m", model_path=path, **changes))[0]


def refused(path: Path, **changes: Any) -> failures.StartFailure:
    with pytest.raises(failures.StartFailure) as caught:
        prove(path, **changes)
    return caught.value


def test_a_package_is_loaded_and_answers_its_golden_rows(packed: tuple[Path, str]) -> None:
    path, digest = packed
    model = prove(path, sha256=digest)
    assert model.digest == digest == hashlib.sha256((path / "kedge.json").read_bytes()).hexdigest()
    assert model.package is not None
    assert len(model.package.golden.rows[0]) == packing.DEFAULT_GOLDEN_ROWS
    assert [(c.name, c.datatype, c.allow_missing) for c in model.signature.columns] == [
        ("age", "FP64", True),
        ("income", "FP64", False),
        ("city", "BYTES", False),
    ]


@pytest.mark.parametrize("name", ["kedge.json", "model.skops", "profile.json", "golden.json"])
def test_a_change_of_any_file_is_found(packed: tuple[Path, str], tmp_path: Path, name: str) -> None:
    path = copy(packed, tmp_path / "p")
    content = (path / name).read_bytes()
    (path / name).write_bytes(content.replace(b"0", b"1", 1))
    assert refused(path, sha256=packed[1]).reason == failures.MODEL_DIGEST_MISMATCH


def rewrite(path: Path, name: str, change: Any) -> None:
    """Changes a file of a package and makes the manifest agree."""
    document = json.loads((path / name).read_text())
    change(document)
    (path / name).write_text(json.dumps(document))
    if name != "kedge.json":
        digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
        rewrite(path, "kedge.json", lambda manifest: manifest["files"].update({name: digest}))


def test_a_model_that_answers_otherwise_is_not_served(packed: tuple[Path, str], tmp_path: Path) -> None:
    path = copy(packed, tmp_path / "p")

    def change(document: dict[str, Any]) -> None:
        document["answers"]["predict"][3] += 1e-3

    rewrite(path, "golden.json", change)
    failure = refused(path)
    assert failure.reason == failures.GOLDEN_ROWS_MISMATCH
    assert "1 of 20" in failure.message


def test_a_difference_within_the_tolerance_is_none(packed: tuple[Path, str], tmp_path: Path) -> None:
    path = copy(packed, tmp_path / "p")

    def change(document: dict[str, Any]) -> None:
        document["answers"]["predict"][3] += 1e-9

    rewrite(path, "golden.json", change)
    prove(path)


def test_another_scikit_learn_is_refused_unless_allowed(packed: tuple[Path, str], tmp_path: Path) -> None:
    path = copy(packed, tmp_path / "p")
    rewrite(path, "kedge.json", lambda m: m["libraries"].update({"scikit-learn": "1.2.3"}))
    failure = refused(path)
    assert failure.reason == failures.LIBRARY_VERSION_SKEW
    assert "1.2.3" in failure.message
    prove(path, allow_version_skew=True)


def test_a_type_that_the_manifest_names_must_still_be_trusted(packed: tuple[Path, str], tmp_path: Path) -> None:
    path = copy(packed, tmp_path / "p")
    rewrite(path, "kedge.json", lambda m: m["trustedTypes"].append("some.Type"))
    failure = refused(path)
    assert failure.reason == failures.MODEL_FORMAT_REFUSED
    assert "some.Type" in failure.message
    prove(path, trusted_types=("some.Type",))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(formatVersion=99),
        lambda m: m["files"].update({"../../etc/passwd": "0" * 64}),
        lambda m: m["inputs"].reverse(),
        lambda m: m.pop("libraries"),
    ],
    ids=["later format", "strange file", "other features", "no libraries"],
)
def test_a_damaged_manifest_is_not_followed(packed: tuple[Path, str], tmp_path: Path, change: Any) -> None:
    path = copy(packed, tmp_path / "p")
    rewrite(path, "kedge.json", change)
    assert refused(path).reason == failures.MODEL_LOAD_FAILED


@pytest.mark.parametrize(
    "case",
    [
        ("profile.json", lambda p: p["features"][0].update(name="nope"), "nope"),
        ("profile.json", lambda p: p["features"].append(5), "TypeError"),
        ("profile.json", lambda p: p["outputs"][0].pop("counts"), "counts"),
        ("profile.json", lambda p: p["outputs"][0].update(counts=[1]), "1 counts"),
        ("profile.json", lambda p: p["features"][2].update(categories=["Oslo"] * 3), "two bins of one label"),
        ("profile.json", lambda p: p.update(rows=float("inf")), "infinity"),
        ("golden.json", lambda g: g["rows"].pop(), "2 features instead of 3"),
        ("golden.json", lambda g: g["rows"][1].pop(), "income"),
        ("golden.json", lambda g: g.update(rows=[[], [], []]), "0 rows"),
        ("golden.json", lambda g: g["rows"][1].__setitem__(0, "Oslo"), "'Oslo'"),
        ("golden.json", lambda g: g["rows"][2].__setitem__(0, 5), "city"),
        ("golden.json", lambda g: g["answers"]["predict"].pop(), "19 answers"),
        ("golden.json", lambda g: g["answers"]["predict"].__setitem__(0, [1, 2]), "inhomogeneous"),
        ("golden.json", lambda g: g.update(answers=[]), "AttributeError"),
        ("kedge.json", lambda m: m.update(files=[]), "AttributeError"),
    ],
)
def test_a_file_that_does_not_suit_the_others_is_named(
    packed: tuple[Path, str], tmp_path: Path, case: tuple[str, Any, str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, change, what = case
    path = copy(packed, tmp_path / "p")
    rewrite(path, name, change)
    assert cli.main(["check", str(path)]) == 1
    written = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert written["reason"] == failures.MODEL_LOAD_FAILED
    assert f"{path / name} is damaged" in written["message"]
    assert what in written["message"]


def test_golden_answers_of_another_type_are_a_mismatch(packed: tuple[Path, str], tmp_path: Path) -> None:
    path = copy(packed, tmp_path / "p")
    rewrite(path, "golden.json", lambda g: g["answers"].update(predict=["stay"] * 20))
    assert refused(path).reason == failures.GOLDEN_ROWS_MISMATCH


async def test_missing_values_are_taken_only_where_training_had_them(packed: tuple[Path, str]) -> None:
    async with support.served(prove(packed[0])) as server:
        good: dict[str, list[Any]] = {"age": [None], "income": [1.0], "city": ["Oslo"]}

        async def ask(**changes: Any) -> httpx.Response:
            inputs = [
                support.tensor(values, name=name, datatype="BYTES" if name == "city" else "FP64")
                for name, values in (good | changes).items()
            ]
            return await server.infer(support.infer_body(*inputs))

        assert (await ask()).status_code == 200
        changes: dict[str, Any]
        for changes in ({"income": [None]}, {"city": [None]}):
            response = await ask(**changes)
            assert response.status_code == 400
            assert f'"{next(iter(changes))}" lacks a value' in response.json()["error"]


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        (FRAME.drop(columns="city"), "city"),
        (FRAME.iloc[:0], "no rows"),
        (np.zeros((3, 2)), "2 features"),
        (np.zeros(3), r"shape \(3,\)"),
        (FRAME.assign(city=1234), '"city" takes strings, but the reference has 1234'),
        (FRAME.assign(age="old"), "\"age\" takes numbers.*'old'"),
        (FRAME.assign(age=pd.Timestamp("2026-01-01")), '"age".*datetime64'),
        (FRAME.assign(age=[pd.Timestamp("2026-01-01"), None] * 50).astype(object), '"age" takes numbers.*Timestamp'),
        (FRAME.assign(age=float("inf")), "cannot predict for the reference: ValueError"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(tmp_path: Path, reference: Any, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        packing.package(frame_model(), reference, tmp_path / "p", name="n")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_never_answers_the_same_twice_is_not_packed(tmp_path: Path) -> None:
    model = BernoulliRBM(n_components=2, n_iter=1).fit(support.IRIS / 10)
    with pytest.raises(ValueError, match=r"a server would refuse this package: .*score_samples differs"):
        packing.package(model, support.IRIS / 10, tmp_path / "p", name="m")
    assert list(tmp_path.iterdir()) == []


class ByType(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Does another thing with small integers than with other numbers, as no server can know."""

    def fit(self, rows: Any, targets: Any = None) -> ByType:
        self.feature_names_in_ = np.array(rows.columns, dtype=object)
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        return np.asarray(rows, dtype=float) + (rows.dtypes == np.int8).to_numpy()


def test_a_model_that_answers_otherwise_than_a_server_would_is_not_packed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(20, dtype=np.int8)})
    model = make_pipeline(ByType(), LinearRegression()).fit(frame, np.arange(20.0))
    trusted = (f"{__name__}.ByType",)
    with pytest.raises(ValueError, match="predict of the model itself is another than a server's for row 0"):
        packing.package(model, frame, tmp_path / "p", name="m", trusted_types=trusted)
    assert list(tmp_path.iterdir()) == []
    packing.package(model, frame.astype(float), tmp_path / "p", name="m", trusted_types=(*trusted, "some.Type"))
    # What is needed, and not whatever was allowed.
    assert packages.read(tmp_path / "p", None).manifest.trusted_types == trusted


def test_the_manifest_tells_what_goes_in_and_what_comes_out(packed: tuple[Path, str]) -> None:
    document = json.loads((packed[0] / "kedge.json").read_text())
    assert [(i["name"], i["datatype"], i["shape"]) for i in document["inputs"]] == [
        ("age", "FP64", [-1]),
        ("income", "FP64", [-1]),
        ("city", "BYTES", [-1]),
    ]
    assert document["outputs"] == [{"name": "predict", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize(("one", "other"), [("01234", "02345"), ("FR", "NA"), ("False", "True")])
def test_strings_that_look_like_something_else_stay_strings_in_a_csv_file(tmp_path: Path, one: str, other: str) -> None:
    frame = pd.DataFrame({"age": [np.nan, *range(8)], "zip": [one, other, None] * 3})
    columns = [("n", SimpleImputer(), ["age"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["zip"])]
    model = make_pipeline(ColumnTransformer(columns), LinearRegression()).fit(frame, np.arange(9.0))
    skops.io.dump(model, tmp_path / "model.skops")
    frame[["zip", "age"]].to_csv(tmp_path / "rows.csv", index=False)
    arguments = ["--reference", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "p"), "--model-name", "m"]
    assert cli.main(["package", str(tmp_path / "model.skops"), *arguments]) == 0
    package = prove(tmp_path / "p").package
    assert package is not None
    assert package.profile.features[1].categories == (one, other)
    assert package.golden.rows[0][:3] == [None, 0.0, 1.0]
    assert package.golden.rows[1][:3] == [one, other, None]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b""),
        ("rows.csv", b'a,b,c,d\n1,2,3,"x'),
        ("rows.csv", b"a,b,c,d\n1,2,3,4,5\n1,2,3,4,5,6\n"),
        ("rows.csv", b"a,b,c,d\n1,2,3,\xff\n"),
        ("rows.csv", b"a,b,c,d\n1,2,3,\n"),
        ("rows.csv", b"a,b,c,d\n1,2,3,one\n"),
        ("rows.csv", b"a,b,c,d\n"),
        ("rows.npy", b""),
        ("rows.npy", b"\x93NUMPY"),
        ("rows.npy", None),
        ("rows.json", b"{}"),
    ],
)
def test_a_reference_that_cannot_be_used_is_one_line(
    tmp_path: Path, iris_file: Path, name: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tmp_path / name
    if content is None:
        np.save(reference, np.array(5.0))
    else:
        reference.write_bytes(content)
    arguments = ["--reference", str(reference), "--out", str(tmp_path / "p"), "--model-name", "m"]
    assert cli.main(["package", str(iris_file), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kedge-server: ")
    assert not (tmp_path / "p").exists()


def test_values_that_pandas_marks_as_missing_are_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "count": pd.array([1, None, 3, 4] * 5, dtype="Int64"),
            "flag": pd.array([True, False, None, True] * 5, dtype="boolean"),
            "ratio": pd.array([0.5, None, 1.5, 2.5] * 5, dtype="Float64"),
            "city": pd.array(["Oslo", "Rome", None, "Oslo"] * 5, dtype="string"),
            "size": pd.Categorical(["S", None, "L", "S"] * 5),
        }
    )
    plain = frame.astype({"count": float, "flag": float, "ratio": float})
    plain = plain.assign(city=["Oslo", "Rome", None, "Oslo"] * 5, size=["S", None, "L", "S"] * 5)
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("n", SimpleImputer(), ["count", "flag", "ratio"]), ("c", encoder, ["city", "size"])])
    model = make_pipeline(columns, LinearRegression()).fit(plain, np.arange(20.0))
    packing.package(model, frame, tmp_path / "p", name="m")
    package = prove(tmp_path / "p").package
    assert package is not None
    assert [(c.datatype, c.allow_missing) for c in package.manifest.columns] == [("FP64", True)] * 3 + [
        ("BYTES", True)
    ] * 2
    assert [bins.counts[-1] for bins in package.profile.features] == [5] * 5
    assert [values[:4] for values in package.golden.rows] == [
        [1.0, None, 3.0, 4.0],
        [1.0, 0.0, None, 1.0],
        [0.5, None, 1.5, 2.5],
        ["Oslo", "Rome", None, "Oslo"],
        ["S", None, "L", "S"],
    ]


def test_the_commands_pack_and_check(tmp_path: Path, iris_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = tmp_path / "rows.npy"
    np.save(reference, support.IRIS)
    out = tmp_path / "p"
    arguments = ["--reference", str(reference), "--out", str(out), "--model-name", "iris"]
    assert cli.main(["package", str(iris_file), *arguments]) == 0
    digest = capsys.readouterr().out.strip()
    assert cli.main(["check", str(out), "--sha256", digest]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["digest"], report["goldenRows"], report["referenceRows"]) == (digest, 20, 150)
    assert report["libraries"]["here"] == report["libraries"]["training"]
    assert cli.main(["check", str(out), "--sha256", "0" * 64]) == 1


def test_a_package_is_fetched_whole_and_verified(packed: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = packed
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=(path / request.url.path.rsplit("/", 1)[1]).read_bytes())

    out = tmp_path / "models" / "p"

    def fetch(sha256: str) -> str:
        uri = "https://models.example/income/?token=x"
        return fetching.fetch(uri, out, sha256, transport=httpx.MockTransport(answer))

    assert fetch(digest) == digest
    assert asked[0] == "https://models.example/income/kedge.json?token=x"
    prove(out, sha256=digest)
    fetch(digest)
    assert len(asked) == 4
    with pytest.raises(failures.StartFailure):
        fetch("0" * 64)
    prove(out, sha256=digest)


def test_a_package_is_copied_from_a_directory(packed: tuple[Path, str], tmp_path: Path) -> None:
    assert fetching.fetch(f"{packed[0]}/", tmp_path / "p", packed[1]) == packed[1]
    prove(tmp_path / "p")


def test_bins_count_below_between_above_and_missing() -> None:
    bins = profiles.measure("x", np.arange(11.0))
    assert bins.edges == tuple(np.arange(11.0))
    live = np.array([-5.0, 0.0, 0.5, 1.0, 1.1, 10.0, 11.0, np.inf, -np.inf, np.nan])
    counted = dict(zip(bins.labels, profiles.count(bins, live).tolist(), strict=True))
    assert {k: v for k, v in counted.items() if v} == {
        "0.0": 2, "1.0": 3, "2.0": 1, "10.0": 1, "+Inf": 2, "__missing__": 1,
    }  # fmt: skip
    assert sum(bins.counts) == 11
    assert bins.counts[0] == 0
    assert bins.counts[-2:] == (0, 0)


def test_categories_beyond_the_bound_share_a_bin_and_new_ones_have_their_own() -> None:
    values = np.array([c for i, c in enumerate("abcdefghijkl") for _ in range(20 - i)], dtype=object)
    bins = profiles.measure("letter", values)
    assert bins.categories == tuple("abcdefghij")
    live = np.array(["a", "k", "l", "z", None, "__missing__"], dtype=object)
    counted = dict(zip(bins.labels, profiles.count(bins, live).tolist(), strict=True))
    assert {k: v for k, v in counted.items() if v} == {"a": 1, "__other__": 2, "__new__": 2, "__missing__": 1}


def test_categories_that_look_alike_have_labels_of_their_own() -> None:
    long, named = ["x" * 64, "x" * 64 + "a", "x" * 64 + "b", "y" * 80], ["__other__", "__missing__", "__new__"]
    values = np.array([*long, *named, "Oslo", "z"] * 2, dtype=object)
    bins = profiles.measure("city", values)
    assert len(set(bins.labels)) == len(bins.labels) == 9 + 3
    assert all(len(label) <= 64 for label in bins.labels)
    assert {"Oslo", "z", "y" * 64} < set(bins.labels)
    labels = dict(zip(bins.categories, bins.labels, strict=False))
    assert not {labels[name] for name in named} & set(named)
    assert bins.labels[-3:] == ("__other__", "__new__", "__missing__")
    # Of two versions the same label is the same category.
    assert profiles.Bins("city", categories=(long[1], long[2])).labels[:2] == (labels[long[1]], labels[long[2]])
    assert profiles.Bins.from_json(json.loads(json.dumps(bins.to_json()))) == bins


@pytest.mark.parametrize(
    "values",
    [np.full(50, np.nan), np.full(50, 3.0), np.array([1.0, 2.0]), np.array([None, None], dtype=object)],
    ids=["all missing", "constant", "two rows", "no categories"],
)
def test_odd_references_have_bins_that_survive_a_round_trip(values: Any) -> None:
    bins = profiles.measure("x", values)
    assert sum(bins.counts) == len(values)
    assert profiles.Bins.from_json(json.loads(json.dumps(bins.to_json()))) == bins


def test_a_wide_reference_keeps_bins_of_its_first_features_and_the_range_of_the_others(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 60))
    model = LinearRegression().fit(rows, rows[:, 0])
    packing.package(model, rows, tmp_path / "1", name="wide")
    packing.package(model, rows + 1, tmp_path / "2", name="wide", bins_of=tmp_path / "1")
    first, second = (packages.read(tmp_path / version, None).profile for version in "12")
    assert (len(first.features), len(first.further)) == (profiles.MAX_FEATURES, 10)
    assert [bins.edges for bins in first.further] == [(column.min(), column.max()) for column in rows.T[50:]]
    assert [bins.edges for bins in second.further] == [bins.edges for bins in first.further]


def test_a_package_of_before_further_features_is_still_read(packed: tuple[Path, str], tmp_path: Path) -> None:
    path = copy(packed, tmp_path / "p")
    rewrite(path, "profile.json", lambda p: p.pop("further"))
    assert prove(path).package is not None


def test_a_later_version_can_be_counted_over_the_bins_of_an_earlier_one(tmp_path: Path) -> None:
    model, later = support.iris_model(), support.IRIS * 1.1
    packing.package(model, support.IRIS, tmp_path / "1", name="m")
    packing.package(model, later, tmp_path / "2", name="m", bins_of=tmp_path / "1")
    first, second = (packages.read(tmp_path / version, None).profile for version in "12")
    assert [bins.labels for bins in second.features] == [bins.labels for bins in first.features]
    assert [bins.labels for bins in second.outputs] == [bins.labels for bins in first.outputs]
    assert second.features[0].counts != first.features[0].counts
    assert sum(second.features[0].counts) == len(later)


def test_bins_of_another_kind_are_not_taken(tmp_path: Path) -> None:
    numbers = profiles.Profile(3, (profiles.measure("a", np.array([1.0, 2.0, 3.0])),), ())
    ((bins,), _) = profiles.of_features(["a"], [np.array(["x", "y"], dtype=object)], numbers)
    assert bins.categories == ("x", "y")


def test_a_package_that_is_not_there_gives_no_bins(tmp_path: Path, iris_file: Path) -> None:
    reference = tmp_path / "reference.npy"
    np.save(reference, support.IRIS)
    arguments = ["--reference", str(reference), "--out", str(tmp_path / "2"), "--model-name", "m"]
    assert cli.main(["package", str(iris_file), *arguments, "--bins-of", str(tmp_path / "none")]) != 0
    assert not (tmp_path / "2").exists()
