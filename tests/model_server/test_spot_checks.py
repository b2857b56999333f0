from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from tests.model_server import support

from kedge_server import cli, compiling, finals, metrics, packages, packing, predicting, proving, spot_checks
from kedge_server.settings import Compile, Settings
from kedge_server.spot_checks import Reason

GOLDEN = packages.GoldenRows((), {})
ROWS = np.arange(6.0).reshape(3, 2)
MODEL = support.iris_model()


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def summed(rows: Any) -> Any:
    return rows.sum(axis=1)


def calls(
    function: finals.Function, draw: float = 0.0, exact: Callable[[Any], Any] = summed, clock: Any = None
) -> tuple[spot_checks.Compiled, Callable[[Any], Any]]:
    compiled = spot_checks.Compiled({"predict": function}, GOLDEN, clock=clock or Clock(), draw=lambda: draw)
    return compiled, compiled.around("predict", exact)


def test_a_call_that_is_not_drawn_is_answered_by_the_compiled_function_alone() -> None:
    def never(_: Any) -> Any:
        raise AssertionError

    compiled, call = calls(summed, draw=1 / spot_checks.CALLS_A_CHECK, exact=never)
    np.testing.assert_array_equal(call(ROWS), [1.0, 5.0, 9.0])
    assert compiled.checked_rows == 0


def test_a_call_that_is_drawn_is_compared_and_answered_by_scikit_learn() -> None:
    compiled, call = calls(lambda rows: summed(rows) * (1 + 1e-7))
    np.testing.assert_array_equal(call(ROWS), [1.0, 5.0, 9.0])
    assert (compiled.checked_rows, compiled.mismatched_rows, compiled.reason) == (3, 0, Reason.NONE)


def test_after_a_difference_scikit_learn_answers_for_good(caplog: pytest.LogCaptureFixture) -> None:
    def wrong_in_one(rows: Any) -> Any:
        return summed(rows) + np.array([0.0, 1e-3, 0.0])[: len(rows)]

    compiled, call = calls(wrong_in_one)
    with caplog.at_level(logging.ERROR):
        np.testing.assert_array_equal(call(ROWS), [1.0, 5.0, 9.0])
    assert (compiled.checked_rows, compiled.mismatched_rows) == (3, 1)
    assert "given up" in caplog.text
    for _ in range(2):
        np.testing.assert_array_equal(call(ROWS), [1.0, 5.0, 9.0])
    assert (compiled.methods, compiled.reason, compiled.checked_rows) == ((), Reason.LIVE_ROWS_DIFFER, 3)


@pytest.mark.parametrize("found", [np.ones((3, 2)), np.array([[1.0], [5.0], [9.0]]), np.array([1.0, np.nan, 9.0])])
def test_another_shape_or_a_lost_number_is_a_difference(found: Any) -> None:
    compiled, call = calls(lambda rows: found)
    call(ROWS)
    assert compiled.mismatched_rows >= 1
    assert not compiled.methods


def test_a_compiled_function_that_raises_costs_nobody_an_answer() -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("broken")

    compiled, call = calls(broken, draw=1.0)
    np.testing.assert_array_equal(call(ROWS), [1.0, 5.0, 9.0])
    assert (compiled.methods, compiled.reason) == ((), Reason.LIVE_ROWS_DIFFER)
    assert "broken" in compiled.why


def test_rows_of_which_it_is_not_sure_go_to_scikit_learn_and_say_nothing_of_it() -> None:
    compiled, call = calls(lambda rows: None)
    np.testing.assert_array_equal(call(ROWS), [1.0, 5.0, 9.0])
    assert (compiled.methods, compiled.checked_rows) == (("predict",), 0)


def test_checks_take_no_more_than_their_share_of_the_time() -> None:
    clock = Clock()

    def slow(rows: Any) -> Any:
        clock.now += 1.0
        return summed(rows)

    compiled, call = calls(summed, exact=slow, clock=clock)
    while clock.now < 1000:
        call(ROWS)
        clock.now += 0.25
    spent = compiled.checked_rows / len(ROWS)
    assert 5 <= spent <= 1000 * spot_checks.TIME_SHARE + 1


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "iris"
    packing.package(MODEL, support.IRIS, out, name="m")
    return out


def prove(path: Path, choice: Compile = Compile.AUTO) -> predicting.Predictor:
    return proving.load_and_prove(Settings(model_name="m", model_path=path, compile=choice))[1]


def test_a_model_that_reproduces_its_golden_rows_is_answered_by_its_compiled_form(packed: Path) -> None:
    compiled = prove(packed).compiled
    assert compiled is not None
    assert set(compiled.methods) == {"predict", "predict_proba", "decision_function"}
    assert prove(packed, Compile.OFF).compiled is None


def test_a_bare_file_is_not_compiled_for_it_has_nothing_to_prove_it_by(iris_file: Path) -> None:
    compiled = prove(iris_file).compiled
    assert compiled is not None
    assert (compiled.methods, compiled.reason) == ((), Reason.NO_GOLDEN_ROWS)


def test_an_estimator_that_is_not_known_stays_with_scikit_learn(tmp_path: Path) -> None:
    model = KNeighborsClassifier(algorithm="brute").fit(support.IRIS, support.IRIS_LABELS)
    packing.package(model, support.IRIS, tmp_path / "p", name="m")
    compiled = prove(tmp_path / "p").compiled
    assert compiled is not None
    assert (compiled.reason, compiled.why) == (Reason.UNKNOWN_ESTIMATOR, "KNeighborsClassifier is not known")


def off_by(rows: Any, amount: float) -> Any:
    return MODEL.predict_proba(rows) + amount


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda rows: off_by(rows, 1e-3), "differs in 20 of 20"),
        (lambda rows: off_by(rows, 1e-3) if len(rows) > 1 else off_by(rows, 0), "differs in 20 of 20"),
        (lambda rows: off_by(rows, 0).astype(np.float32), "float32"),
        (lambda rows: off_by(rows, 0) if len(rows) == 1 else None, "alone and not together"),
        (lambda rows: rows["x"], "raised IndexError"),
    ],
)
def test_what_does_not_reproduce_the_golden_rows_is_not_admitted(
    function: finals.Function, why: str, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "compiled", lambda *_: {"predict_proba": function})
    predictor = prove(packed)
    assert predictor.compiled is not None
    assert (predictor.compiled.methods, predictor.compiled.reason) == ((), Reason.GOLDEN_ROWS_DIFFER)
    assert why in predictor.compiled.why
    np.testing.assert_allclose(predictor.call("predict_proba")(support.IRIS[:2]), off_by(support.IRIS[:2], 0))


@pytest.mark.parametrize("kind", [DecisionTreeClassifier, RandomForestClassifier])
def test_a_model_whose_golden_rows_each_lack_a_value_is_not_compiled_and_served(tmp_path: Path, kind: Any) -> None:
    rows = np.where(np.arange(4) == np.arange(len(support.IRIS))[:, None] % 4, np.nan, support.IRIS)
    model = kind(random_state=0).fit(rows, support.IRIS_LABELS)
    packing.package(model, rows, tmp_path / "p", name="m")
    predictor = prove(tmp_path / "p")
    assert predictor.compiled is not None
    assert (predictor.compiled.methods, predictor.compiled.reason) == ((), Reason.GOLDEN_ROWS_UNSURE)
    assert "leaves each of the golden rows to scikit-learn" in predictor.compiled.why
    np.testing.assert_array_equal(predictor.call("predict")(rows), model.predict(rows))


def test_a_compiler_that_trips_over_a_model_is_no_reason_not_to_serve_it(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("private")

    monkeypatch.setattr(compiling, "compiled", broken)
    compiled = prove(packed).compiled
    assert compiled is not None
    assert compiled.reason is Reason.UNKNOWN_ESTIMATOR


def compiled_lines(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("kedge_server_compiled")]


def test_the_metrics_page_tells_what_is_compiled_and_how_its_checks_went() -> None:
    registry = metrics.Metrics("m")
    assert compiled_lines(registry.render().decode()) == []
    registry.compiled, call = calls(lambda rows: summed(rows) + np.array([0.0, 0.0, 1.0]))
    assert compiled_lines(registry.render().decode())[0] == (
        'kedge_server_compiled_info{model="m",state="Compiled",reason="",methods="predict"} 1'
    )
    call(ROWS)
    assert compiled_lines(registry.render().decode()) == [
        'kedge_server_compiled_info{model="m",state="NotCompiled",reason="LiveRowsDiffer",methods=""} 1',
        'kedge_server_compiled_checked_rows_total{model="m"} 3',
        'kedge_server_compiled_mismatched_rows_total{model="m"} 1',
    ]


def test_a_server_compiles_when_it_is_told_to(packed: Path) -> None:
    with support.process("--model-path", str(packed), "--compile", "Auto") as server:
        body = support.iris_body(3, parameters={"method": "predict_proba"})
        answer = httpx.post(f"{server.url}/v2/models/m/infer", json=body).json()
        found = np.reshape(answer["outputs"][0]["data"], (3, 3))
        np.testing.assert_array_equal(found, MODEL.predict_proba(support.IRIS[:3]))
        page = httpx.get(f"{server.url}/metrics", params={"name[]": "kedge_server_compiled_info"}).text
        assert 'state="Compiled"' in page
        assert any(line["message"] == "the model is compiled" for line in server.logs())


def test_check_tells_whether_a_model_would_be_compiled(
    packed: Path, iris_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(packed)]) == 0
    assert '"predict_proba"' in capsys.readouterr().out.split('"compiled"')[1]
    assert cli.main(["check", str(iris_file)]) == 0
    assert '"reason": "NoGoldenRows"' in capsys.readouterr().out
