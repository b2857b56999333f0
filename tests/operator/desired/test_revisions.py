from typing import Any

import pytest

from kedge.api import specs
from kedge.desired import revisions
from kedge.desired.names import Owner

OWNER = Owner("churn", "prod", "uid-1")


def spec(**changes: Any) -> specs.ModelDeploymentSpec:
    model = {"uri": "https://models/1.skops", "sha256": "a" * 64}
    return specs.ModelDeploymentSpec.model_validate({"model": model} | changes)


def test_a_hash_is_stable_over_versions_of_kedge() -> None:
    """Should this value ever change, every model in service would be rolled out anew by an upgrade."""
    assert revisions.revision_hash(spec()) == "3b0ee92d34"


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": 7},
        {"rollout": {"minimumRequests": 5}},
        {"metrics": {"intervalSeconds": 1}},
        {"objectives": [{"name": "a", "indicator": {"type": "Availability"}, "targetPercent": "90"}]},
        {"server": {"env": []}},
        {"traffic": {"mode": "Service"}},
    ],
)
def test_what_does_not_define_the_pods_is_not_in_the_hash(changes: dict[str, Any]) -> None:
    assert revisions.revision_hash(spec(**changes)) == revisions.revision_hash(spec())


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"uri": "https://models/2.skops", "sha256": "a" * 64}},
        {"model": {"uri": "https://models/1.skops", "sha256": "b" * 64}},
        {"model": {"uri": "https://models/1.skops", "sha256": "a" * 64, "secretRef": {"name": "bucket"}}},
        {"server": {"image": "other:1"}},
        {"server": {"env": [{"name": "A", "value": "1"}]}},
        {"server": {"resources": {"limits": {"memory": "1Gi"}}}},
    ],
)
def test_what_defines_the_pods_is_in_the_hash(changes: dict[str, Any]) -> None:
    assert revisions.revision_hash(spec(**changes)) != revisions.revision_hash(spec())


def test_an_upgrade_with_another_default_image_changes_no_known_revision() -> None:
    before = revisions.declare(spec(), default_image="server:1", sequence=1)
    after = revisions.declare(spec(), default_image="server:2", sequence=1)
    assert before.hash == after.hash
    assert revisions.remembered(revisions.controller_revision(OWNER, before)).image == "server:1"


def test_what_is_remembered_is_what_was_declared() -> None:
    declared = revisions.declare(
        spec(server={"env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": 1}}}),
        default_image="server:1",
        sequence=3,
    )
    assert revisions.remembered(revisions.controller_revision(OWNER, declared)) == declared


def test_a_revision_of_a_newer_kedge_is_an_error_and_not_a_guess() -> None:
    written = revisions.controller_revision(OWNER, revisions.declare(spec(), default_image="a:1", sequence=1))
    written["data"]["version"] = 99
    with pytest.raises(ValueError, match="version 99"):
        revisions.remembered(written)
