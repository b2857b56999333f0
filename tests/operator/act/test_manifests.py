from typing import Any

import pytest

from kedge.act import manifests

EXISTING = {
    "spec": {"replicas": 3, "selector": {"a": "1", "b": "2"}, "containers": [{"name": "x", "image": "i"}]},
    "status": {},
}


@pytest.mark.parametrize(
    ("manifest", "fulfilled"),
    [
        ({"spec": {"replicas": 3}}, True),
        ({"spec": {"replicas": 2}}, False),
        ({"spec": {"containers": [{"name": "x"}]}}, True),
        ({"spec": {"containers": [{"name": "y"}]}}, False),
        ({"spec": {"containers": [{"name": "x"}, {"name": "y"}]}}, False),
        ({"spec": {"selector": {"a": "1", "b": "2"}}}, True),
        ({"spec": {"selector": {"a": "1"}}}, False),
        ({"spec": {"tolerations": []}}, True),
        ({"spec": {"containers": []}}, False),
        ({"spec": {"strategy": {"type": "Recreate"}}}, False),
    ],
)
def test_an_object_fulfils_a_manifest_when_every_field_of_it_is_there(
    manifest: dict[str, Any], fulfilled: bool
) -> None:
    assert manifests.fulfils(EXISTING, manifest) is fulfilled
