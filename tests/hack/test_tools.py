from __future__ import annotations

import pytest
from hack.localcluster import firewall, gobuild, tools


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind v0.33.0 go1.26.8 linux/amd64", (0, 33, 0)),
        ("v3.22.0+g12ab", (3, 22, 0)),
        ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0", (1, 32, 4)),
        ("", (0, 0, 0)),
    ],
)
def test_versions_are_read_from_what_tools_print(text: str, expected: tools.Version) -> None:
    assert tools.parse_version(text) == expected


def test_only_tools_of_a_suitable_version_are_used() -> None:
    assert tools.suits_kind((0, 33, 0))
    assert not tools.suits_kind((0, 29, 0))
    assert tools.suits_helm((3, 22, 0))
    assert not tools.suits_helm((3, 2, 0))
    assert not tools.suits_helm((4, 0, 0))
    assert [minor for minor in range(30, 40) if tools.suits_kubectl((1, minor, 0))] == [33, 34, 35]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.19 linux/arm64", (1, 19)), ("", (0, 0))],
)
def test_gos_version_is_read(text: str, expected: tuple[int, int]) -> None:
    assert gobuild.version(text) == expected


MODULES = ["kubernetes", "etcd", "coredns", "kind", "helm", "pause", "versitygw"]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_names_tools_and_has_a_key_of_its_own(module: str) -> None:
    text = (gobuild.MODULES / module / "go.mod").read_text()

    assert "\ntool " in text
    assert len({gobuild.key(name) for name in MODULES}) == len(MODULES)


def test_pinned_versions_agree_with_the_modules() -> None:
    assert f"k8s.io/kubernetes {gobuild.KUBERNETES}" in (gobuild.MODULES / "kubernetes/go.mod").read_text()
    assert f"helm.sh/helm/v3 {gobuild.HELM}" in (gobuild.MODULES / "helm/go.mod").read_text()
    assert f"versity/versitygw {gobuild.VERSITYGW}" in (gobuild.MODULES / "versitygw/go.mod").read_text()


def test_firewall_rules_name_the_bridge_they_serve() -> None:
    made = firewall.rules("br-abc", "172.18.0.0/16")

    assert all("br-abc" in rule for _, rule in made)
    assert [rule[0] for _, rule in made] == ["POSTROUTING", "FORWARD", "FORWARD"]
