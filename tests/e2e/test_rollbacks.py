"""Candidates that are ready and bad: users' own requests show it, and they are taken back."""

from collections.abc import Callable

import pytest
from hack.lab.traffic import Report
from tests.e2e.worlds import World, now

pytestmark = pytest.mark.e2e

Tell = Callable[[Report, str], None]

LATENCY = {
    "name": "latency",
    "indicator": {"type": "Latency", "thresholdMilliseconds": 50},
    "targetPercent": "90",
}
NOT_WORSE = [
    {"name": "not-worse", "indicator": {"type": "Availability"}, "compareTo": "Stable", "tolerancePercent": "2"}
]
AVAILABILITY = {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99"}


def test_one_that_fails_on_some_requests(world: World, tell: Tell) -> None:
    stable = world.serve("v1")
    users = world.users()
    since = now()

    world.declare("v3", rollout_minimumRequests=200)
    rejected = world.assert_rolled_back(
        stable, reason="ObjectiveFailed", evidence="requests failed, objective 1 %, at weight 33 %", since=since
    )

    users.wait_for_answers(40)
    counted = users.stop()
    tell(counted, rejected["revision"])
    assert rejected["objective"] == "availability"
    record = world.finished_record(rejected["revision"], "RolledBack")
    assert (record["stable"], record["reason"], record["gaps"]) == (stable, "ObjectiveFailed", [])
    assert record["objectives"][0]["verdict"] == "Fail"
    assert record["series"]["points"][-1]["objectives"][0]["bad"] == record["objectives"][0]["bad"] > 0
    assert counted.answers(rejected["revision"]) > 0
    assert 0 < counted.lost == counted.outcome("server_error"), counted.line
    assert all(cause.startswith("500: ") for cause in counted.causes), counted.causes
    assert counted.stable_answers_last(stable)


def test_one_that_fails_on_every_request(world: World, tell: Tell) -> None:
    stable = world.serve("v1")
    users = world.users(rate=20)
    since = now()

    world.declare("smoke-test")
    rejected = world.assert_rolled_back(stable, reason="ObjectiveFailed", evidence="100 % of", since=since)

    users.wait_for_answers(40)
    counted = users.stop()
    tell(counted, rejected["revision"])
    span = counted.span_of(rejected["revision"])
    assert counted.answers(rejected["revision"]) == 0
    assert 0 < counted.lost == counted.outcome("server_error"), counted.line
    assert span is not None
    assert span[1] - span[0] < 15
    assert counted.lost < 60


def test_one_that_is_slower_than_its_objective(world: World, tell: Tell) -> None:
    stable = world.serve("forest", objectives=[AVAILABILITY, LATENCY])
    users = world.users(rate=10)
    since = now()

    world.declare("huge-forest", objectives=[AVAILABILITY, LATENCY])
    rejected = world.assert_rolled_back(
        stable, reason="ObjectiveFailed", evidence="requests over 50 ms, objective 10 %", since=since
    )

    users.wait_for_answers(20)
    counted = users.stop()
    tell(counted, rejected["revision"])
    assert rejected["objective"] == "latency"
    assert counted.lost == 0, counted.line


def test_one_that_runs_out_of_memory_under_real_batches(world: World, tell: Tell) -> None:
    resources = {"requests": {"cpu": "20m", "memory": "160Mi"}, "limits": {"memory": "288Mi"}}
    stable = world.serve("v1", server_resources=resources)
    users = world.users(rate=5, rows_per_request=500)
    since = now()

    world.declare("triple-products", server_resources=resources)
    world.assert_rolled_back(stable, reason="OOMKilled", evidence="needed more memory than its limit", since=since)

    users.wait_for_answers(20)
    counted = users.stop()
    tell(counted, "")
    assert counted.outcome("server_error") + counted.outcome("connection_error") == counted.lost
    assert counted.stable_answers_last(stable)


def test_one_that_is_worse_than_the_stable_version(world: World, tell: Tell) -> None:
    """Nobody knows what is normal here: the stable version itself fails on one request in nine."""
    stable = world.serve("v3", objectives=NOT_WORSE)
    users = world.users()
    since = now()

    world.declare("smoke-test", objectives=NOT_WORSE)
    rejected = world.assert_rolled_back(stable, reason="ObjectiveFailed", evidence="tolerance 2 %", since=since)

    counted = users.stop()
    tell(counted, rejected["revision"])
    assert rejected["objective"] == "not-worse"


def test_one_that_fails_no_more_than_the_stable_version_is_not_taken_back(world: World) -> None:
    stable = world.serve("v3", objectives=NOT_WORSE)
    users = world.users()

    world.declare("v3", objectives=NOT_WORSE, server_env=[{"name": "TUNED", "value": "yes"}])
    status = world.wait_for({"Ready": "True"})

    counted = users.stop()
    assert status["stableRevision"] != stable
    assert "rejectedRevisions" not in status or status["rejectedRevisions"] == []
    assert counted.outcome("server_error") > 0
