from __future__ import annotations

import pathlib
import tarfile

import pytest
from hack.localcluster import images

DOCKERFILE = """\
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS build
# COPY nothing /
COPY requirements/server.txt \\
     /tmp/
COPY --chown=1:1 ["model_server/kedge_server", "/tmp/kedge_server"]
FROM ${BASE_IMAGE}
COPY --from=build /opt/kedge /opt/kedge
COPY LICENSE* /
"""


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, text in {
        "model_server/Dockerfile": DOCKERFILE,
        "model_server/kedge_server/app.py": "app",
        "requirements/server.txt": "numpy",
        "requirements/dev.txt": "pytest",
        "LICENSE": "free",
        "README.md": "read",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


SOURCE = images.Source("kedge-model-server", "model_server/Dockerfile", "modelServer")


def test_a_dockerfile_tells_what_it_copies() -> None:
    assert images.copied(DOCKERFILE) == ["requirements/server.txt", "model_server/kedge_server", "LICENSE*"]


def test_a_dockerfile_tells_its_earlier_stages() -> None:
    assert images.stages(DOCKERFILE) == ["build"]
    assert images.stages("FROM a\nRUN b\n") == []


@pytest.mark.parametrize("changed", ["model_server/kedge_server/app.py", "requirements/server.txt", "LICENSE"])
def test_a_tag_follows_every_file_that_is_copied(checkout: pathlib.Path, changed: str) -> None:
    before = images.tag(checkout, SOURCE, "")
    (checkout / changed).write_text("changed")

    assert images.tag(checkout, SOURCE, "") != before


def test_a_tag_follows_the_dockerfile_and_the_base(checkout: pathlib.Path) -> None:
    before = images.tag(checkout, SOURCE, "base:1")

    assert images.tag(checkout, SOURCE, "base:2") != before
    (checkout / SOURCE.dockerfile).write_text(DOCKERFILE + "USER 1\n")
    assert images.tag(checkout, SOURCE, "base:1") != before


@pytest.mark.parametrize("changed", ["README.md", "requirements/dev.txt", "new.txt"])
def test_a_tag_ignores_the_rest_of_the_work_tree(checkout: pathlib.Path, changed: str) -> None:
    before = images.tag(checkout, SOURCE, "")
    (checkout / changed).write_text("changed")

    assert images.tag(checkout, SOURCE, "") == before


def test_the_build_context_holds_only_what_is_copied(checkout: pathlib.Path) -> None:
    files = images.defining_files(checkout, checkout / SOURCE.dockerfile)
    context = checkout / "context.tar"
    images.write_context(context, checkout, files)

    with tarfile.open(context) as packed:
        assert packed.getnames() == [
            "LICENSE",
            "model_server/Dockerfile",
            "model_server/kedge_server/app.py",
            "requirements/server.txt",
        ]
        assert {entry.mtime for entry in packed} == {0}


LISTING = """\
REF                                             TYPE                    DIGEST      SIZE    PLATFORMS   LABELS
docker.io/library/kedge-operator:new            application/vnd.docker  sha256:aa   1 MiB   linux/amd64 -
docker.io/library/kedge-operator:used           application/vnd.docker  sha256:bb   1 MiB   linux/amd64 -
docker.io/library/kedge-operator:old            application/vnd.docker  sha256:cc   1 MiB   linux/amd64 -
docker.io/library/kedge-model-server:old        application/vnd.docker  sha256:dd   1 MiB   linux/amd64 -
docker.io/library/kedge-model-server:same       application/vnd.docker  sha256:aa   1 MiB   linux/amd64 -
import-2026-11-24@sha256:cc                     application/vnd.docker  sha256:cc   1 MiB   linux/amd64 -
registry.example/etcd:3.6                       application/vnd.docker  sha256:ee   1 MiB   linux/amd64 -
sha256:0123                                     application/vnd.docker  sha256:cc   1 MiB   linux/amd64 -
"""


def test_an_old_image_leaves_the_node_under_all_its_names() -> None:
    kept = {"kedge-operator:new", "kedge-operator:used", "kedge-operator:unknown"}

    assert images.superseded(LISTING, kept) == [
        "docker.io/library/kedge-operator:old",
        "docker.io/library/kedge-model-server:old",
        "import-2026-11-24@sha256:cc",
        "sha256:0123",
    ]
