"""What is not Kedge's is not touched."""

import pytest
from hack.lab import journal
from tests.e2e.worlds import NAME, READY, World

pytestmark = pytest.mark.e2e


def test_a_service_of_somebody_else_is_named_and_left_as_it_is(world: World) -> None:
    world.kubectl.run("create", "service", "clusterip", NAME, "--tcp=80:8080")
    before = world.kubectl.get("service", NAME)

    world.declare("v1", replicas=1)
    status = world.wait_for({"Stalled": "True", "Degraded": "True", "Ready": "False"})

    told = journal.condition(status, "Ready")
    assert told["reason"] == "NameConflict"
    assert f"Service {NAME} exists and belongs to somebody else" in told["message"]
    assert world.kubectl.get("service", NAME) == before
    assert world.kubectl.items("deployments") == []

    world.kubectl.run("delete", "service", NAME)
    world.wait_for(READY, within=60)
