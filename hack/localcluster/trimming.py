"""Removal of what earlier versions of a recipe left in the caches.

Another checkout may still use an older version, so files go only after a week without a new
one, and Docker keeps an image by itself while a container uses it.
"""

from __future__ import annotations

import pathlib
import shutil
import time

from hack.localcluster import docker

KEPT_SECONDS = 7 * 24 * 3600


def superseded(current: pathlib.Path, now: float) -> list[pathlib.Path]:
    """The files or folders beside the current one that differ from it in their key only.

    Their names are `<what>-<key>` with the same suffixes.
    """
    what = current.name.rpartition("-")[0]
    return sorted(
        other
        for other in current.parent.glob(f"{what}-*")
        if other != current and other.name.rpartition("-")[0] == what and now - other.stat().st_mtime > KEPT_SECONDS
    )


def files(current: pathlib.Path) -> None:
    for old in superseded(current, time.time()):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()


def images(daemon: docker.Docker, current: str) -> None:
    repository = current.partition(":")[0]
    listed = daemon.lines("images", "--format", "{{.Repository}}:{{.Tag}}", repository)
    for name in listed:
        if name != current:
            daemon.output("rmi", name)
