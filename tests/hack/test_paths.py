from __future__ import annotations

import pathlib

import pytest
from hack.localcluster import paths

CHECKOUT = pathlib.Path("/somewhere/kedge")


def test_two_checkouts_get_two_clusters() -> None:
    first = paths.cluster_name(CHECKOUT, {})
    second = paths.cluster_name(CHECKOUT.parent / "other", {})

    assert first != second
    assert first == paths.cluster_name(CHECKOUT, {})
    assert first.startswith("kedge-")
    assert len(first) == len("kedge-") + 6


def test_the_environment_can_name_the_cluster() -> None:
    assert paths.cluster_name(CHECKOUT, {"KEDGE_CLUSTER": "mine"}) == "mine"
    assert paths.cluster_name(CHECKOUT, {"KEDGE_CLUSTER": ""}).startswith("kedge-")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/somewhere/a"}, "/somewhere/a/.cache/kedge"),
        ({"HOME": "/somewhere/a", "XDG_CACHE_HOME": "/var/cache/a"}, "/var/cache/a/kedge"),
        ({"HOME": "/somewhere/a", "XDG_CACHE_HOME": "relative"}, "/somewhere/a/.cache/kedge"),
        ({"HOME": "/somewhere/a", "XDG_CACHE_HOME": ""}, "/somewhere/a/.cache/kedge"),
    ],
)
def test_the_cache_lies_where_xdg_says(environment: dict[str, str], expected: str) -> None:
    assert paths.cache_root(environment) == pathlib.Path(expected)


def test_the_daemons_socket_fits_a_unix_address() -> None:
    cache = pathlib.Path("/home") / ("long" * 40) / ".cache" / "kedge"
    where = paths.Paths(CHECKOUT, cache, "kedge-abc")

    assert len(str(where.runtime / "docker.sock")) < 108


def test_state_lies_in_the_checkout_and_never_in_the_users_kubeconfig() -> None:
    where = paths.Paths(CHECKOUT, pathlib.Path("/cache"), "kedge-abc")

    assert where.kubeconfig == CHECKOUT / ".local" / "kubeconfig"
    assert where.node_name == "kedge-abc-control-plane"
