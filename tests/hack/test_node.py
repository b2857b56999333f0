from __future__ import annotations

import json
import pathlib
import tarfile
from typing import Any

import pytest
from hack.localcluster import cluster, gobuild, node_image, oci, paths
from hack.localcluster.node.runtime import without_sys_resource

REQUIRED = [
    "registry.example/kube-apiserver:v1.34.4",
    "registry.example/kube-proxy:v1.34.4",
    "registry.example/coredns/coredns:v1.12.1",
    "registry.example/pause:3.10.1",
    "registry.example/etcd:3.6.5-0",
]


def programs(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    made: dict[str, pathlib.Path] = {}
    for name in ("kube-apiserver", "kube-proxy", "coredns", "pause", "etcd"):
        made[name] = folder / name
        made[name].write_text(f"the program {name}")
        made[name].chmod(0o755)
    return made


def test_system_images_carry_the_names_that_kubeadm_asks_for(tmp_path: pathlib.Path) -> None:
    made = node_image.system_images(REQUIRED, "registry.example/pause:3.10", programs(tmp_path), {})

    names = {image.reference for image in made}
    assert names == {*REQUIRED, "registry.example/pause:3.10"} - {"registry.example/pause:3.10.1"}
    proxy = next(image for image in made if "kube-proxy" in image.reference)
    assert {"usr/sbin/iptables", "usr/sbin/ip6tables-restore"} <= set(proxy.links)


def test_an_image_archive_is_the_same_each_time_and_names_its_images(tmp_path: pathlib.Path) -> None:
    made = node_image.system_images(REQUIRED, "registry.example/pause:3.10", programs(tmp_path), {})
    for name in ("first.tar", "second.tar"):
        oci.write(tmp_path / name, made, "amd64", tmp_path)

    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    with tarfile.open(tmp_path / "first.tar") as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        described = json.load(index)["manifests"]
        held = set(archive.getnames())
    assert [entry["annotations"][oci.NAME_ANNOTATION] for entry in described] == [image.reference for image in made]
    assert all(f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}" in held for entry in described)


def test_the_pause_images_name_is_read_from_containerds_configuration() -> None:
    text = '[plugins]\n  # use fixed sandbox image\n  sandbox_image = "registry.example/pause:3.10"\n'

    assert node_image.sandbox_image(text) == "registry.example/pause:3.10"


def test_the_node_images_key_is_stable_and_follows_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    before = node_image.key()
    assert node_image.key() == before

    monkeypatch.setattr(gobuild, "KUBERNETES", "v1.34.5")
    assert node_image.key() != before


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("docker.io/kindest/node@sha256:44e2: Pulling from kindest/node\n", True),
        ("Error response from daemon: connection refused\n", False),
        (None, False),
    ],
)
def test_a_registry_has_answered_once_it_knows_the_image(line: str | None, *, expected: bool) -> None:
    assert cluster.answers_pull(line) is expected


def test_a_record_that_cannot_be_read_is_no_record(tmp_path: pathlib.Path) -> None:
    where = paths.Paths(tmp_path, tmp_path / "cache", "kedge-abc")
    assert cluster.read_record(where) is None

    made = cluster.Record("kedge-node:1", "configuration")
    made.write(where)
    assert cluster.read_record(where) == made
    assert made.is_built

    where.cluster_record.write_text('{"node_image": "kedge-node:1"}')
    assert cluster.read_record(where) is None


@pytest.mark.parametrize(
    ("words", "name", "specification"),
    [
        (["create", "--bundle", "{folder}", "id"], "config.json", {"process": {}}),
        (["--log", "x", "exec", "--process", "{folder}/process.json", "id"], "process.json", {}),
    ],
)
def test_the_runtime_asks_for_everything_but_the_missing_capability(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    name: str,
    specification: dict[str, Any],
) -> None:
    capabilities = {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "ambient": []}
    specification = json.loads(json.dumps(specification))
    specification.get("process", specification)["capabilities"] = capabilities
    (tmp_path / name).write_text(json.dumps(specification))
    executed: list[list[str]] = []
    monkeypatch.setattr("os.execvp", lambda _, arguments: executed.append(arguments))
    given = [word.format(folder=tmp_path) for word in words]

    without_sys_resource.main(given)

    left = json.loads((tmp_path / name).read_text())
    assert left.get("process", left)["capabilities"] == {"bounding": ["CAP_KILL"], "ambient": []}
    assert executed == [["runc", *given]]
