"""Facts about this machine, read without changing it, and which path they leave open."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Mapping

from hack.localcluster import errors

CAP_SYS_RESOURCE = 24
BUILD_SPACE_BYTES = 8 * 1024**3


@dataclasses.dataclass(frozen=True)
class Facts:
    """What decides how a cluster can be had here."""

    is_root: bool
    has_apt: bool
    docker_answers: bool


def read(*, docker_answers: bool) -> Facts:
    return Facts(
        is_root=os.geteuid() == 0,
        has_apt=shutil.which("apt-get") is not None,
        docker_answers=docker_answers,
    )


def require_docker_or_root(facts: Facts) -> None:
    """Raises UnsuitableMachineError when no Docker daemon can be had at all."""
    if facts.docker_answers or (facts.is_root and facts.has_apt):
        return
    if not facts.is_root:
        raise errors.UnsuitableMachineError(
            "Docker is missing: no daemon answers and this user is not root. Start Docker and let "
            "this user use it, or run this as root on Debian 12, where it is installed for you."
        )
    raise errors.UnsuitableMachineError(
        "Docker is missing: no daemon answers and this system has no apt-get to install it with. "
        "Start Docker, or use Debian 12."
    )


def require_build(facts: Facts) -> None:
    """Raises UnsuitableMachineError when a node image cannot be built from source here."""
    if facts.is_root and facts.has_apt:
        return
    raise errors.UnsuitableMachineError(
        "A node image is missing: no image registry answers, and only root on Debian 12 can build "
        "one from source. Make the registry reachable for Docker, or run this as root on Debian 12."
    )


def require_space(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < BUILD_SPACE_BYTES:
        raise errors.LocalClusterError(
            f"{folder} has {free / 1024**3:.1f} GiB free and the build needs "
            f"{BUILD_SPACE_BYTES / 1024**3:.0f}: free some space, or point XDG_CACHE_HOME elsewhere."
        )


def capability_bounding_set(status: str) -> int | None:
    """Reads CapBnd from the text of /proc/self/status."""
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return int(found[1], 16) if found else None


def lacks_sys_resource(status: str) -> bool:
    """Whether containers must do without CAP_SYS_RESOURCE, which privileged ones ask for."""
    bounding_set = capability_bounding_set(status)
    return bounding_set is not None and not bounding_set >> CAP_SYS_RESOURCE & 1


def processes(name: str) -> dict[int, list[str]]:
    """The command lines of the running processes of that program, by process id."""
    found: dict[int, list[str]] = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if pathlib.PurePath(words[0]).name == name:
            found[int(folder.name)] = words
    return found


def path_with_system(environment: Mapping[str, str]) -> str:
    """PATH, with the folders of system programs that a bare shell of root may lack."""
    folders = environment.get("PATH", "").split(os.pathsep)
    folders += ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return os.pathsep.join(unique(folder for folder in folders if folder))


def path_without(folder: pathlib.Path, environment: Mapping[str, str]) -> str:
    """PATH without one folder: what the machine offers by itself."""
    folders = environment.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(name for name in folders if name and name != str(folder))


def unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
