"""Candidates that never become ready: they are taken back and cost no user a request."""

from typing import Any

import pytest
from tests.e2e.worlds import World, now

pytestmark = pytest.mark.e2e

WRONG_DIGEST = "5eed" * 16


def wrong_digest(world: World) -> dict[str, Any]:
    return {"model": world.models["v2"].model() | {"sha256": WRONG_DIGEST}}


def missing_artifact(world: World) -> dict[str, Any]:
    artifact = world.models["v2"].model()
    return {"model": artifact | {"uri": artifact["uri"].replace("v2", "v22")}}


def pickled_artifact(world: World) -> dict[str, Any]:
    return {"model": world.models["pickle"]}


def missing_image(world: World) -> dict[str, Any]:
    return {"model": world.models["v2"], "server_image": "kedge-model-server:never-built"}


def wrong_setting(world: World) -> dict[str, Any]:
    return {
        "model": world.models["v2"],
        "server_env": [{"name": "KEDGE_SERVER_MAX_BATCH_ROWS", "value": "many"}],
    }


@pytest.mark.parametrize(
    ("declared", "reason", "evidence"),
    [
        pytest.param(wrong_digest, "ModelDigestMismatch", f"{WRONG_DIGEST} was declared", id="wrong digest"),
        pytest.param(missing_artifact, "ModelFetchFailed", "answered 404", id="missing artifact"),
        pytest.param(pickled_artifact, "ModelFormatRefused", "pickle", id="pickled artifact"),
        pytest.param(missing_image, "ImagePullBackOff", "kedge-model-server:never-built", id="missing image"),
        pytest.param(wrong_setting, "CrashLoopBackOff", "exit code 2", id="crash at start"),
    ],
)
def test_a_candidate_that_cannot_start_costs_no_request(
    world: World, declared: Any, reason: str, evidence: str
) -> None:
    stable = world.serve("v1")
    users = world.users()
    since = now()

    world.declare(**declared(world))
    rejected = world.assert_rolled_back(stable, reason=reason, evidence=evidence, since=since)

    users.wait_for_answers(20)
    counted = users.stop()
    assert "in preflight" in rejected["message"]
    assert "StepStarted" not in world.event_reasons()
    assert (counted.lost, counted.answers(stable)) == (0, counted.sent), counted.line
