"""Models in a bucket, fetched with a Secret's credentials; wrong ones cost no request."""

import pathlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from examples.digits import train
from hack.lab import buckets
from hack.lab.kubectl import Kubectl
from hack.lab.store import Artifact
from tests.e2e.worlds import NAME, READY, SERVE_SECONDS, World, now

from kedge_server import packing

pytestmark = pytest.mark.e2e

SECRET = "bucket"


@pytest.fixture(scope="module")
def store(kedge: None) -> Iterator[buckets.ClusterStore]:
    """Opens an S3 store in the cluster."""
    outside = Kubectl("default")
    namespace = f"buckets-{secrets.token_hex(3)}"
    outside.run("create", "namespace", namespace)
    made = buckets.ClusterStore(Kubectl(namespace))
    made.open()
    yield made
    outside.run("delete", "namespace", namespace, "--wait=false")


def make_secret(world: World, name: str, environment: dict[str, str]) -> None:
    literals = [f"--from-literal={key}={value}" for key, value in environment.items()]
    world.kubectl.run("create", "secret", "generic", name, *literals)


def with_secret(artifact: Artifact) -> dict[str, Any]:
    return {**artifact.model(), "secretRef": {"name": SECRET}}


def package(folder: pathlib.Path) -> pathlib.Path:
    """Returns a package of the digits model with its golden rows."""
    rows, labels = train.data()
    target = folder / "digits"
    packing.package(train.version_2(rows, labels), rows[: train.TRAINING_ROWS], target, name=NAME, version="2")
    return target


def test_models_and_packages_roll_out_from_a_bucket(
    world: World, store: buckets.ClusterStore, tmp_path: pathlib.Path
) -> None:
    make_secret(world, SECRET, buckets.environment(store.endpoint))
    world.declare(with_secret(store.put(world.models.file("v1"), "digits/v1.skops")))
    first = world.wait_for(READY, within=SERVE_SECONDS)["stableRevision"]

    users = world.users()
    world.declare(with_secret(store.put(package(tmp_path), "digits/v2")))
    second = world.wait_for(READY)["stableRevision"]
    users.wait_for_answers(20)
    counted = users.stop()

    assert second != first
    assert counted.lost == 0, counted.line
    assert counted.answers(second) > 0


def test_credentials_that_the_store_refuses_roll_a_candidate_back(world: World, store: buckets.ClusterStore) -> None:
    stable = world.serve("v1")
    make_secret(world, SECRET, buckets.environment(store.endpoint) | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    model = store.put(world.models.file("v2"), "digits/v2.skops")
    users = world.users()
    since = now()

    world.declare(with_secret(model))
    world.assert_rolled_back(
        stable, reason="ModelFetchFailed", evidence="the store refused the credentials", since=since
    )

    users.wait_for_answers(20)
    counted = users.stop()
    assert (counted.lost, counted.answers(stable)) == (0, counted.sent), counted.line
