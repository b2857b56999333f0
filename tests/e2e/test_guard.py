"""Versions that turn bad after promotion, and people's levers."""

import json
import pathlib

import pytest
from examples.digits import train
from hack.lab import journal
from tests.e2e.worlds import NAME, READY, REPLICAS, World, now

pytestmark = pytest.mark.e2e

GUARD = {"durationSeconds": 600, "warmReplicas": REPLICAS}


@pytest.fixture
def rows_of_training(tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns the rows that version 3 was trained with: it is right on all of them."""
    rows, labels = train.data()
    known = {"rows": rows[: train.RECENT_ROWS].astype(int).tolist(), "labels": labels[: train.RECENT_ROWS].tolist()}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(known))
    return path


def test_one_that_turns_bad_after_promotion_is_taken_back(world: World, rows_of_training: pathlib.Path) -> None:
    stable = world.serve("v1", rollout_guard=GUARD)
    easy = world.users(rows_of_training)
    since = now()
    world.declare("v3", rollout_guard=GUARD)
    promoted = world.wait_for(READY)
    assert promoted["previousRevision"] == stable
    assert easy.stop().lost == 0

    users = world.users()
    rejected = world.assert_rolled_back(stable, reason="ObjectiveFailed", evidence="after promotion", since=since)
    guard = world.finished_record(rejected["revision"], "RolledBack")
    assert (guard["period"], guard["stable"]) == ("Guard", stable)

    users.wait_for_answers(40)
    counted = users.stop()
    assert 0 < counted.lost == counted.outcome("server_error"), counted.line
    assert counted.stable_answers_last(stable)


def test_a_person_takes_a_version_back_and_asks_for_it_again(world: World) -> None:
    stable = world.serve("v1")
    users = world.users()
    since = now()
    world.declare("v2", rollout_minimumRequests=100_000)
    candidate = world.wait_for_step()["candidateRevision"]

    refused = world.kedge("retry", NAME)
    assert (refused.returncode, "was not rejected" in refused.stderr) == (2, True), refused
    assert world.kedge("abort", NAME).returncode == 0
    world.assert_rolled_back(stable, reason="Aborted", evidence="kedge.dev/abort", since=since)
    record = world.finished_record(candidate, "RolledBack")
    assert (record["reason"], record["abortedBy"]) == ("Aborted", "kedge-cli")
    assert f"kedge retry {NAME}" in world.kedge("explain", NAME).stdout

    retried = world.kedge("retry", NAME)
    assert retried.returncode == 0, retried.stderr
    world.declare("v2")
    assert world.wait_for(READY)["stableRevision"] == candidate
    assert users.stop().lost == 0


def test_a_step_waits_for_a_persons_approval(world: World) -> None:
    steps = [
        {"weightPercent": 33, "minimumSeconds": 2, "approval": "Required"},
        {"weightPercent": 50, "minimumSeconds": 2, "approval": "Required"},
    ]
    world.serve("v1", rollout_steps=steps)
    users = world.users()
    world.declare("v2", rollout_steps=steps)
    candidate = world.wait_for_step()["candidateRevision"]
    wait_for_approval(world, step=1)
    assert f"kedge approve {NAME}" in world.kedge("explain", NAME).stdout
    assert world.kedge("approve", NAME).returncode == 0

    wait_for_approval(world, step=2)
    world.annotate("kedge.dev/approve", f"{candidate}/2")
    assert world.wait_for(READY)["stableRevision"] == candidate
    assert users.stop().lost == 0
    record = world.finished_record(candidate, "Promoted")
    assert [(one["step"], one["manager"]) for one in record["approvals"]] == [(1, "kedge-cli"), (2, "kubectl-annotate")]
    refused = world.kedge("approve", NAME)
    assert (refused.returncode, "nothing is being rolled out" in refused.stderr) == (2, True), refused
    table = world.kubectl.run("get", "mrec", f"--selector=kedge.dev/revision={candidate}").splitlines()
    assert table[0].split() == ["NAME", "MODEL", "CANDIDATE", "OUTCOME", "REASON", "STARTED", "ENDED"]
    assert table[1].split()[1:5] == [NAME, candidate, "Promoted", "Promoted"]


def wait_for_approval(world: World, *, step: int) -> None:
    world.journal.wait(
        NAME,
        lambda status: (
            journal.condition(status, "Ready")["reason"] == "WaitingForApproval"
            and status["rollout"]["step"] == step - 1
        ),
        within=60,
        what=f"step {step} to wait for approval",
    )
