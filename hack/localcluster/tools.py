"""The programs a person needs beside the cluster: kind, helm and kubectl.

What is on PATH in a suitable version is used; the rest is built and linked into the
checkout's `.local/bin`, which comes first in the PATH of everything that this tool runs.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping

from hack.localcluster import docker, gobuild, locks, machine, paths, progress

Version = tuple[int, int, int]

KIND_MINIMUM: Version = (0, 33, 0)
HELM_MAJOR = 3
HELM_MINIMUM: Version = (3, 14, 0)


def parse_version(text: str) -> Version:
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def suits_kind(version: Version) -> bool:
    return version >= KIND_MINIMUM


def suits_helm(version: Version) -> bool:
    """Helm 4 changed flags that the charts' documentation and tests rely on."""
    return version >= HELM_MINIMUM and version[0] == HELM_MAJOR


def suits_kubectl(version: Version) -> bool:
    """Kubernetes supports a client one minor version away from its server."""
    server = parse_version(gobuild.KUBERNETES)
    return version[0] == server[0] and abs(version[1] - server[1]) <= 1


TOOLS: Mapping[str, tuple[tuple[str, ...], Callable[[Version], bool]]] = {
    "kind": (("version",), suits_kind),
    "helm": (("version", "--short"), suits_helm),
    "kubectl": (("version", "--client"), suits_kubectl),
}
HINTS = {"kind": "about 15 s", "helm": "about 1 min", "kubectl": "about 1 min"}


def ensure(where: paths.Paths, console: progress.Console, daemon: docker.Docker) -> None:
    """Links into `.local/bin` whatever PATH does not offer, building it if need be."""
    where.bin.mkdir(parents=True, exist_ok=True)
    for name in TOOLS:
        if not _on_path(where, name):
            _link(where.bin / name, _built(where, console, name))
        else:
            (where.bin / name).unlink(missing_ok=True)
    if daemon.program != shutil.which("docker"):
        _link(where.bin / "docker", pathlib.Path(daemon.program))


def _on_path(where: paths.Paths, name: str) -> bool:
    program = shutil.which(name, path=machine.path_without(where.bin, os.environ))
    if program is None:
        return False
    words, suits = TOOLS[name]
    return suits(parse_version(progress.output_of([program, *words]) or ""))


def _built(where: paths.Paths, console: progress.Console, name: str) -> pathlib.Path:
    whole = gobuild.location(where, "kubernetes") / name
    if name != "kubectl":
        return gobuild.build(where, console, name, HINTS[name]) / name
    if whole.is_file():
        return whole
    return gobuild.build(where, console, "kubernetes", HINTS[name], only=name) / name


def _link(link: pathlib.Path, program: pathlib.Path) -> None:
    if link.is_symlink() and link.readlink() == program:
        return
    with locks.new_file(link) as new:
        new.symlink_to(program)
