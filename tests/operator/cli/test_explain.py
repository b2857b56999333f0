import json
import pathlib
from typing import Any

import pytest
from tests.operator import recordings, worlds
from tests.operator.worlds import World, revision_of, spec

from kedge import cli
from kedge.cli import explaining
from kedge.cli.levers import Model

ONE, TWO = revision_of("1"), revision_of("2")
APPROVAL = {"steps": [{"weightPercent": 25, "minimumSeconds": 10, "approval": "Required"}]}


def explained(world: World) -> str:
    """Returns what is told of a world's ModelDeployment."""
    told = explaining.model(Model.read(object_of(world)), "prod")
    assert max(map(len, told.splitlines())) <= 100
    return told


def object_of(world: World) -> dict[str, Any]:
    return {
        "apiVersion": "kedge.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "churn", "namespace": "prod"},
        "spec": world.spec.to_json(),
        "status": world.status.to_json(),
    }


def test_what_nobody_has_seen_yet() -> None:
    assert "Serving      nothing: Kedge has not seen it yet. Is the operator running?" in explained(World())


def test_rest() -> None:
    world = worlds.serving()
    world.tick()
    assert explained(world).splitlines() == [
        "ModelDeployment churn in prod",
        f"Serving      {ONE}, 3 ready pods behind the Service, 3 declared",
        f"Says         serving {ONE} with 3 of 3 replicas ready",
        "Rolling out  nothing",
    ]


def test_a_step_with_its_evidence() -> None:
    world = worlds.in_step(0)
    world.serve(requests=200)
    world.tick()

    assert explained(world).splitlines()[3:] == [
        f"Rolling out  {TWO}, step 1 of 2 at weight 25 % (served 25 %), since 2027-01-15T08:00:15.000000Z",
        "Waits for    WaitingForTime, until 2027-01-15T08:00:30.000000Z",
        "",
        f"Objectives of {TWO}",
        "  availability: InsufficientData, 50 of 100 requests in this step",
        "      0 bad of 150: 0 %, between 0 and 3.969 % at every look; design effect 1",
        "      log e-value -2.1455, fails at 4.6052, at a chance of 1 % of a false one",
        "      so many requests would have revealed 8.586 % bad ones (95 % probability)",
        "",
        "What you can do",
        f"  - take {TWO} back: kedge abort churn -n prod",
    ]


def test_a_step_that_waits_for_requests() -> None:
    world = worlds.in_step(0)
    world.tick(20)
    world.tick()

    told = explained(world)
    assert "Waits for    WaitingForRequests, until 2027-01-15T08:02:20.000000Z; then onInsufficientData says" in told


def test_a_step_that_waits_for_a_person() -> None:
    world = worlds.in_step(0, rollout=APPROVAL)
    world.run_until(lambda w: w.reason() == "WaitingForApproval", requests=400)

    told = explained(world)
    assert "Waits for    WaitingForApproval, for as long as it takes\n" in told
    assert "  - let step 1 pass: kedge approve churn -n prod\n" in told


def test_a_rejected_revision_and_what_to_do_about_it() -> None:
    world = worlds.in_step(0)
    world.run_until(lambda w: w.status.rejected_revisions, requests=400, bad=0.2)

    told = explained(world)
    assert "Rolling out  nothing" in told
    assert f"Objectives of {TWO}\n  availability: Fail, " in told
    assert f"Rejected\n  {TWO}: ObjectiveFailed at " in told
    assert f"  - try {TWO} once more: kedge retry churn -n prod" in told


def test_a_guarded_revision() -> None:
    world = recordings.rolled_out(rollout=recordings.GUARD)
    world.tick()

    told = " ".join(explained(world).split())
    assert f"Guarding {TWO} since " in told
    assert f"; {ONE} can take over" in told
    assert f"- go back to {ONE}: kedge abort churn -n prod" in told


def test_a_pause_and_an_objective_on_hold() -> None:
    world = worlds.in_step(0)
    world.declare(spec("2", rollout={"paused": True}))
    world.tick()
    assert "set spec.rollout.paused to false" in explained(world)

    held = [{"name": "a", "indicator": {"type": "Availability"}, "targetPercent": "99", "action": "Hold"}]
    world = worlds.in_step(0, objectives=held)
    world.run_until(lambda w: w.reason() == "ObjectiveOnHold", requests=400, bad=0.3)
    assert "change the objective" in explained(world)


def test_files_are_explained_without_a_cluster(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = approved()
    record = {
        "apiVersion": "kedge.dev/v1alpha1",
        "kind": "RolloutRecord",
        "metadata": {"name": "churn-2"},
        "record": world.records[-1].to_json(),
    }
    file = tmp_path / "list.json"
    file.write_text(json.dumps({"kind": "List", "items": [object_of(world), record]}))

    assert cli.main(["explain", "--file", str(file)]) == 0
    told = capsys.readouterr().out
    assert "ModelDeployment churn in prod\n" in told
    assert f"RolloutRecord churn-2\nRollout      {TWO} beside {ONE} of churn\nOutcome      Promoted" in told
    assert "approved by kedge-cli" in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 100

    assert cli.main(["explain", "churn-2", "--file", str(file)]) == 0
    assert "ModelDeployment" not in capsys.readouterr().out
    assert cli.main(["explain", "other", "--file", str(file)]) == 2
    assert "holds nothing that is named other" in capsys.readouterr().err


def approved() -> recordings.RecordedWorld:
    world = recordings.RecordedWorld(spec("1", rollout=APPROVAL))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2", rollout=APPROVAL))
    world.pull(approve=f"{TWO}/1", approved_by="kedge-cli")
    world.run_until(lambda w: w.status.stable_revision == TWO, requests=400)
    return world


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{apiVersion: v1, kind: Pod}", "neither a ModelDeployment nor a RolloutRecord"),
        ("{apiVersion: kedge.dev/v1alpha1, kind: ModelDeployment, metadata: {name: a}}", "not one that this Kedge"),
    ],
)
def test_other_files_are_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)

    assert cli.main(["explain", "-f", str(tmp_path / "a.yaml")]) == 2
    assert complaint in capsys.readouterr().err


def test_a_name_or_a_file_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain"]) == 2
    assert "name a ModelDeployment, or a file" in capsys.readouterr().err
