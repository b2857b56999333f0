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
    world.assert_rolled_back(stable, reason="ObjectiveFailed", evidence="after promotion", since=since)

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

    world.annotate("kedge.dev/abort", candidate)
    world.assert_rolled_back(stable, reason="Aborted", evidence="kedge.dev/abort", since=since)

    world.kubectl.run("annotate", f"modeldeployment/{NAME}", "kedge.dev/abort-")
    world.annotate("kedge.dev/retry", "monday")
    world.declare("v2")
    assert world.wait_for(READY)["stableRevision"] == candidate
    assert users.stop().lost == 0


def test_a_step_waits_for_a_persons_approval(world: World) -> None:
    steps = [{"weightPercent": 33, "minimumSeconds": 2, "approval": "Required"}]
    world.serve("v1", rollout_steps=steps)
    users = world.users()
    world.declare("v2", rollout_steps=steps)
    candidate = world.wait_for_step()["candidateRevision"]
    world.journal.wait(
        NAME,
        lambda status: journal.condition(status, "Ready")["reason"] == "WaitingForApproval",
        within=60,
        what="a step that waits for approval",
    )

    world.annotate("kedge.dev/approve", f"{candidate}/1")
    assert world.wait_for(READY)["stableRevision"] == candidate
    assert users.stop().lost == 0
