"""Removal of what earlier versions of a recipe left in the caches.

Another checkout may still use an older version, so files go only after a week without a new
one, and Docker keeps an image by itself while a container uses it.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

from hack.localcluster import docker

TRASH = ".trash-"
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


def discard(*unwanted: pathlib.Path) -> None:
    """Removes folders of very many files in the background: it takes minutes on some disks.

    They are renamed first, so that a next run starts anew at once; what a killed removal left
    goes with the next one.
    """
    for folder in unwanted:
        if folder.is_dir():
            folder.rename(folder.with_name(f"{TRASH}{folder.name}-{os.getpid()}"))
    trash = [str(left) for folder in unwanted for left in folder.parent.glob(f"{TRASH}{folder.name}-*")]
    if trash:
        command = ["nice", "rm", "--recursive", "--force", *trash]
        quiet = subprocess.DEVNULL
        subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def images(daemon: docker.Docker, current: str) -> None:
    repository = current.partition(":")[0]
    listed = daemon.lines("images", "--format", "{{.Repository}}:{{.Tag}}", repository)
    for name in listed:
        if name != current:
            daemon.output("rmi", name)
