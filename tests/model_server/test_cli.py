from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.model_server import support

import kedge_server
from kedge_server import cli, failures, packages, serving, sockets
from kedge_server.settings import Compile, Settings


def test_a_failed_start_tells_its_reason_in_the_termination_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, model = tmp_path / "log", tmp_path / "model.skops"
    log.touch()
    model.write_bytes(pickle.dumps({}))
    arguments = ["serve", "--model-name", "m", "--model-path", str(model), "--port", "0"]
    assert cli.main([*arguments, "--host", "127.0.0.1", "--termination-log", str(log)]) == 1
    lines = log.read_text().splitlines()
    assert len(lines) == 1
    written = json.loads(lines[0])
    assert written["reason"] == failures.MODEL_FORMAT_REFUSED
    assert "skops.io.dump" in written["message"]
    assert lines[0] in capsys.readouterr().err


def test_fetch_tells_its_reason_too(tmp_path: Path) -> None:
    log, source = tmp_path / "log", tmp_path / "source"
    log.touch()
    source.write_bytes(b"x")
    arguments = ["fetch", str(source), "--sha256", "0" * 64, "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--termination-log", str(log)]) == 1
    assert json.loads(log.read_text())["reason"] == failures.MODEL_DIGEST_MISMATCH
    assert not (tmp_path / "out").exists()


def test_a_termination_log_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert not failures.report(failures.StartFailure("Reason", "message"), tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_termination_message_fits_what_kubernetes_keeps() -> None:
    assert len(failures.StartFailure("Reason", "word " * 5000).to_json()) < 4096


def settings(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Settings:
    seen: list[Settings] = []

    def run(given: Settings) -> int:
        seen.append(given)
        return 0

    monkeypatch.setattr(serving, "run", run)
    assert cli.main(["serve", *arguments]) == 0
    return seen[0]


def test_every_option_can_come_from_the_environment_and_the_command_line_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "MODEL_NAME": "churn",
        "MODEL_PATH": "/m",
        "PORT": "9",
        "LATENCY_THRESHOLD_MS": "100, 2.5",
        "TRUSTED_TYPE": "a.B",
        "MAX_BATCH_ROWS": "7",
        "DRAIN_SECONDS": "0",
        "FEEDBACK_TOLERANCE": "0.5",
        "FEEDBACK_TOLERANCE_PERCENT": "5",
        "COMPILE": "Auto",
    }.items():
        monkeypatch.setenv(f"KEDGE_SERVER_{name}", value)
    given = settings(monkeypatch, "--port", "10", "--trusted-type", "c.D", "--trusted-type", "e.F")
    assert (given.model_name, given.model_path, given.port) == ("churn", Path("/m"), 10)
    assert given.latency_thresholds_ms == (100.0, 2.5)
    assert given.trusted_types == ("c.D", "e.F")
    assert (given.limits.max_batch_rows, given.drain_seconds) == (7, 0.0)
    assert (given.feedback_tolerance, given.feedback_tolerance_percent) == (0.5, 5.0)
    assert given.compile is Compile.AUTO


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--model-name", "a/b", "letters, digits"),
        ("--sha256", "abc", "64 hexadecimal digits"),
        ("--host", "a..b", "a host's name or address"),
        ("--port", "70000", "a number from 0 to 65535"),
        ("--port", "abc", "a number from 0 to 65535"),
        ("--max-batch-rows", "0", "a whole number above 0"),
        ("--max-batch-rows", "1.5", "a whole number above 0"),
        ("--latency-threshold-ms", "-1", "a finite number above 0"),
        ("--latency-threshold-ms", "1,abc", "a finite number above 0"),
        ("--request-timeout-seconds", "inf", "a finite number above 0"),
        ("--drain-seconds", "nan", "a finite number of 0 or more"),
        ("--log-level", "loud", "debug, info, warning, error"),
        ("--feedback-tolerance", "-1", "a finite number of 0 or more"),
        ("--feedback-tolerance-percent", "ten", "a finite number of 0 or more"),
        ("--compile", "auto", "Off or Auto"),
        ("--count-data", "no", "true or false"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_wanted(
    option: str, value: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", "--model-name", "m", "--model-path", "/m", option, value])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert f"argument {option}: {value.rpartition(',')[2]!r} is not" in told
    assert wanted in told
    assert "KEDGE_SERVER" not in told


@pytest.mark.parametrize("option", ["port", "latency-threshold-ms"])
def test_a_wrong_variable_is_named_with_its_option(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"KEDGE_SERVER_{option.replace('-', '_').upper()}"
    monkeypatch.setenv(variable, "abc")
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", "--model-name", "m", "--model-path", "/m"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert f"argument --{option}: 'abc' is not" in told
    assert f"from {variable}" in told


@pytest.mark.parametrize("command", ["serve", "fetch", "package", "check"])
def test_a_wrong_variable_leaves_the_help_alone(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_SERVER_LATENCY_THRESHOLD_MS", "abc")
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert "--log-level" in capsys.readouterr().out


def test_a_wrong_variable_leaves_the_commands_alone_that_lack_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_SERVER_LATENCY_THRESHOLD_MS", "abc")
    (tmp_path / "source").write_bytes(b"x")
    assert cli.main(["fetch", str(tmp_path / "source"), "--out", str(tmp_path / "out")]) == 0


def test_the_command_line_takes_the_place_of_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEDGE_SERVER_LATENCY_THRESHOLD_MS", "abc")
    given = settings(monkeypatch, "--model-name", "m", "--model-path", "/m", "--latency-threshold-ms", "7")
    assert given.latency_thresholds_ms == (7.0,)


def test_a_training_script_packs_its_model(iris: Any, tmp_path: Path) -> None:
    digest = kedge_server.package(iris, support.IRIS, tmp_path / "iris", name="iris", version="7")
    manifest = (tmp_path / "iris" / packages.MANIFEST).read_bytes()
    assert digest == hashlib.sha256(manifest).hexdigest()
    assert json.loads(manifest)["version"] == "7"


def test_what_fetches_imports_no_scikit_learn() -> None:
    script = "import sys, kedge_server.cli, kedge_server.fetching; print({'sklearn', 'numpy'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_the_server_s_package_has_nothing_else_by_name() -> None:
    with pytest.raises(AttributeError, match="'kedge_server' has no attribute 'packed'"):
        kedge_server.packed  # type: ignore[attr-defined]  # noqa: B018


def unheard(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns what is said by a server that cannot listen."""
    assert cli.main(["serve", "--model-name", "m", "--model-path", "/m", *arguments]) == 1
    return capsys.readouterr().err


def test_a_port_that_is_taken_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    with sockets.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        told = unheard(capsys, "--host", "127.0.0.1", "--port", str(port))
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; " in told
    assert "choose another --host or --port" in told


def test_an_address_of_another_machine_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    told = unheard(capsys, "--host", "192.0.2.1", "--port", "0")
    assert "cannot listen on 192.0.2.1:0: " in told
    assert "--host" in told


def test_a_port_that_grpc_cannot_have_is_told_by_its_own_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(given: Settings) -> int:
        raise OSError("gRPC cannot listen on 127.0.0.1:9")

    monkeypatch.setattr(serving, "run", run)
    told = unheard(capsys, "--grpc-port", "9")
    assert "gRPC cannot listen on 127.0.0.1:9; " in told
    assert "--grpc-port" in told
