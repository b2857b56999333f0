"""Ignorance is neither success nor failure: what happens when a step's deadline passes without data."""

import pytest
from hack.lab import journal
from tests.e2e.worlds import NAME, READY, World, now

pytestmark = pytest.mark.e2e

SHORT = {"rollout_stepDeadlineSeconds": 6}


def test_hold_keeps_the_step_and_says_what_is_missing(world: World) -> None:
    stable = world.serve("v1")
    since = now()

    world.declare("v2", rollout_onInsufficientData="Hold", **SHORT)
    status = world.wait_for({"Stalled": "True"})

    told = journal.condition(status, "Stalled")
    assert told["reason"] == "InsufficientData"
    assert "0 of 30 requests in this step after 6 s" in told["message"]
    assert (status["stableRevision"], status["rollout"]["phase"]) == (stable, "Step")
    assert journal.conditions(status)["Available"] == "True"

    users = world.users()
    world.wait_for(READY)
    counted = users.stop()
    assert counted.lost == 0, counted.line
    assert world.journal.lowest_ready(stable, since=since, until=world.promoted_at(world.stable())) >= 2


def test_roll_back_takes_a_candidate_back_that_nobody_asked(world: World) -> None:
    stable = world.serve("v1")
    since = now()

    world.declare("v2", rollout_onInsufficientData="RollBack", **SHORT)

    world.assert_rolled_back(
        stable, reason="InsufficientData", evidence="0 of 30 requests in this step after 6 s", since=since
    )


def test_promote_goes_on_without_data(world: World) -> None:
    stable = world.serve("v1", replicas=1)

    world.declare("v2", replicas=1, rollout_onInsufficientData="Promote", **SHORT)

    assert world.wait_for(READY)["stableRevision"] != stable


def test_observe_rolls_nothing_back_and_tells_what_it_would_have_done(world: World) -> None:
    world.serve("v1", replicas=1)
    users = world.users()

    world.declare("hundred-rows", replicas=1, rollout_enforcement="Observe")
    status = world.journal.wait(
        NAME,
        lambda status: any(one["verdict"] == "Fail" for one in status.get("objectives") or []),
        within=90,
        what="a failed objective",
    )
    candidate = status["candidateRevision"]
    promoted = world.wait_for({"Ready": "True", "RolledBack": "False"})

    users.stop()
    assert promoted["stableRevision"] == candidate
    assert "WouldRollBack" in world.event_reasons()
    assert "RolledBack" not in world.event_reasons()
