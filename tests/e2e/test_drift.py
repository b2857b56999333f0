"""Live data that are not what they were: seen in the servers' histograms, told, and acted on where it helps."""

import json
import pathlib

import pytest
from examples.digits import train
from tests.e2e.worlds import World, now

pytestmark = pytest.mark.e2e

AVAILABILITY = {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99"}
ANSWERS = {
    "name": "answers",
    "indicator": {"type": "PredictionDrift"},
    "compareTo": "Stable",
    "maximum": "0.2",
}
INPUTS = {"name": "inputs", "indicator": {"type": "FeatureDrift"}, "maximum": "0.2", "action": "Alert"}
VALID = {"name": "valid", "indicator": {"type": "ValidInputs"}, "targetPercent": "99", "action": "Alert"}
OFTEN = {"intervalSeconds": 1, "driftIntervalSeconds": 2}


def test_a_version_that_answers_otherwise_without_any_error_is_rolled_back(world: World) -> None:
    packages = [world.models.package("v2"), world.models.package("v4", bins_of="v2")]
    declared = {"objectives": [AVAILABILITY, ANSWERS], "metrics": OFTEN, "server_compile": "Auto"}
    world.declare(packages[0], **declared)
    stable = str(world.wait_for({"Ready": "True"})["stableRevision"])
    users = world.users()
    since = now()

    world.declare(packages[1], **declared)
    rejected = world.assert_rolled_back(
        stable, reason="ObjectiveFailed", evidence="PSI of prediction predict", since=since
    )

    counted = users.stop()
    assert rejected["objective"] == "answers"
    assert counted.lost == 0, counted.line
    assert counted.answers(rejected["revision"]) > 0


def test_inputs_that_changed_for_everybody_are_told_and_roll_nothing_back(world: World, tmp_path: pathlib.Path) -> None:
    live = train.live_rows()
    inverted = tmp_path / "inverted.json"
    inverted.write_text(json.dumps({**live, "rows": [[20 - pixel for pixel in row] for row in live["rows"]]}))
    objectives = [AVAILABILITY, INPUTS, VALID]
    stable = world.serve("v1", objectives=objectives, metrics=OFTEN)
    users = world.users(inverted)

    world.declare(world.models.package("v2"), objectives=objectives, metrics=OFTEN)
    status = world.journal.wait(
        "digits",
        lambda status: status.get("stableRevision") not in {None, stable} and status.get("candidateRevision") is None,
        within=120,
        what="a promotion",
    )

    counted = users.stop()
    assert counted.lost == 0, counted.line
    assert status.get("rejectedRevisions", []) == []
    verdicts = {one["name"]: one for one in status["objectives"]}
    assert verdicts["inputs"]["verdict"] == "Fail"
    assert verdicts["inputs"]["histogram"].startswith("feature ")
    assert verdicts["valid"]["verdict"] == "Fail"
    assert "rows were outside the profile" in verdicts["valid"]["message"]
    assert "ObjectiveAlert" in world.event_reasons()
