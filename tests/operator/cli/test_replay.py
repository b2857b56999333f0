import io
import json
import pathlib
from typing import Any

import pytest
import yaml
from tests.operator import recordings
from tests.operator.worlds import spec

from kedge import cli

FINISHED = recordings.rolled_back().records[-1].to_json()


def object_of(record: Any, name: str = "churn-1") -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(record))
    return {
        "apiVersion": "kedge.dev/v1alpha1",
        "kind": "RolloutRecord",
        "metadata": {"name": name, "namespace": "prod", "creationTimestamp": "2027-01-15T08:00:00Z"},
        "record": copied,
    }


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "record.yaml"


@pytest.mark.parametrize("as_yaml", [True, False])
def test_an_honest_record_exits_with_0_and_sums_up(
    file: pathlib.Path, capsys: pytest.CaptureFixture[str], as_yaml: bool
) -> None:
    file.write_text(yaml.safe_dump(object_of(FINISHED)) if as_yaml else json.dumps(object_of(FINISHED)))

    assert cli.main(["replay", str(file)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "churn-1: 3 decisions derived again, no difference"
    assert lines[1].endswith("beside 3b0ee92d34 of churn")
    assert lines[2].startswith("  RolledBack (ObjectiveFailed) at 2027-01-15T08:00:20.000000Z: serving 3b0ee92d34")
    assert lines[3] == "  availability: Fail, 20 % of 100 requests failed, objective 1 %"


def test_times_without_quotes_are_read_as_they_stand(file: pathlib.Path) -> None:
    file.write_text(yaml.safe_dump(object_of(FINISHED)).replace("'2027", "2027").replace("Z'", "Z"))

    assert cli.main(["replay", str(file)]) == 0


def test_verbose_prints_a_line_for_each_decision(file: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(json.dumps(object_of(FINISHED)))

    cli.main(["replay", "--verbose", str(file)])

    told = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  2027")]
    assert [line[1:4] for line in told][:2] == [["Preflight", "Preflight"], ["Step", "1", "StepStarted"]]
    assert told[2][1:] == ["-", "ObjectiveFailed", "availability", "Fail", "20/100", "log", "e", "40.3245"]


def test_an_edited_record_exits_with_1_and_says_where(file: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = object_of(FINISHED)
    edited["record"]["objectives"][0]["bad"] = 0
    edited["record"]["outcome"] = "Promoted"
    file.write_text(json.dumps(edited))

    assert cli.main(["replay", str(file)]) == 1

    printed = capsys.readouterr().out
    assert "churn-1: 3 decisions derived again, 2 differences" in printed
    assert '  first: record.outcome\n         recorded "Promoted", derived "RolledBack"' in printed
    assert "         record.objectives[0].bad\n         recorded 0, derived 20" in printed


def test_programs_get_json(file: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = object_of(FINISHED, name="churn-2")
    edited["record"]["series"]["points"][0]["objectives"][0]["bad"] = 0
    listed = {"apiVersion": "v1", "kind": "List", "items": [object_of(FINISHED), edited]}
    file.write_text(json.dumps(listed))

    assert cli.main(["replay", "--output", "json", str(file)]) == 1

    honest, other = json.loads(capsys.readouterr().out)["records"]
    assert (honest["name"], honest["identical"], honest["whole"], honest["decisions"]) == ("churn-1", True, True, 3)
    assert honest["segments"] == ["Start"]
    assert other["differences"] == [
        {
            "time": "2027-01-15T08:00:20.000000Z",
            "field": "record.series.points[0].objectives[0].bad",
            "recorded": 0,
            "derived": 20,
        }
    ]


def test_a_record_comes_from_standard_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(object_of(FINISHED))))

    assert cli.main(["replay", "-"]) == 0


def test_gaps_and_what_was_given_up_are_told(file: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = recordings.RecordedWorld()
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2"))
    world.run_until(lambda w: w.status.rollout and w.status.rollout.step == 1, requests=400)
    world.recording = None
    world.run_until(lambda w: w.status.stable_revision == w.declared, requests=400)
    told = world.records[-1].to_json()
    told["journal"]["dropped"] = 3
    file.write_text(json.dumps(object_of(told)))

    assert cli.main(["replay", str(file)]) == 0

    printed = capsys.readouterr().out
    assert f"nothing is known from {told['startedAt']} to " in printed
    assert "its first 3 segments were given up" in printed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no object"),
        ("a: [b", "neither YAML nor JSON"),
        ("just words", "it has no kind"),
        ("- 1", "it has no kind"),
        ("{kind: List, items: []}", "holds no object"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a}}", "a is no RolloutRecord of kedge.dev/v1alpha1, but v1 Pod"),
        (
            "{apiVersion: kedge.dev/v1alpha1, kind: RolloutRecord, metadata: {name: a}, record: {candidate: b}}",
            "RolloutRecord a is damaged: record.modelDeployment: Field required",
        ),
        ("{apiVersion: kedge.dev/v1alpha1, kind: RolloutRecord, metadata: {name: a}}", "RolloutRecord a is damaged"),
    ],
)
def test_what_is_no_record_exits_with_2_and_a_reason(
    file: pathlib.Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    file.write_text(text)

    assert cli.main(["replay", str(file)]) == 2

    said = capsys.readouterr()
    assert (said.out, complaint in said.err) == ("", True), said.err


def test_a_journal_that_cannot_be_read_exits_with_2(
    file: pathlib.Path, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    damaged = object_of(FINISHED)
    damaged["record"]["journal"]["segments"][0] = "damaged"
    file.write_text(json.dumps(damaged))
    assert cli.main(["replay", str(file)]) == 2
    assert "RolloutRecord churn-1 cannot be replayed: segment 1 of the journal is damaged" in capsys.readouterr().err

    damaged["record"]["journal"]["version"] = 9
    file.write_text(json.dumps(damaged))
    assert cli.main(["replay", str(file)]) == 2
    assert "version 9" in capsys.readouterr().err

    assert cli.main(["replay", str(tmp_path / "nothing")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert cli.main(["replay", str(tmp_path)]) == 2
    file.write_bytes(b"\xff\xfe\x00")
    assert cli.main(["replay", str(file)]) == 2
    assert "it is no text" in capsys.readouterr().err
