import pytest

from kedge import cli
from kedge.control import settings
from kedge.control.settings import SettingsError


def test_everything_but_the_image_has_a_default() -> None:
    chosen = settings.from_environment({"KEDGE_MODEL_SERVER_IMAGE": "server:1"})
    assert chosen.watch_namespaces == ()
    assert chosen.port == 8080


def test_namespaces_are_a_list_with_commas() -> None:
    given = {"KEDGE_MODEL_SERVER_IMAGE": "server:1", "KEDGE_WATCH_NAMESPACES": "a, b,,"}
    assert settings.from_environment(given).watch_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [("KEDGE_LOG_LEVEL", "LOUD"), ("KEDGE_LOG_FORMAT", "xml"), ("KEDGE_PORT", "http"), ("KEDGE_PORT", "70000")],
)
def test_a_setting_that_makes_no_sense_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings.from_environment({"KEDGE_MODEL_SERVER_IMAGE": "server:1", name: value})


def test_a_missing_image_is_a_clear_error_and_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KEDGE_MODEL_SERVER_IMAGE", raising=False)
    assert cli.main(["run"]) == 2
    assert "set KEDGE_MODEL_SERVER_IMAGE" in capsys.readouterr().err


def test_the_crd_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["crd"]) == 0
    assert "kind: CustomResourceDefinition" in capsys.readouterr().out
