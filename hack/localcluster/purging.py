"""Removal of everything that this tool keeps outside the checkout."""

from __future__ import annotations

import pathlib
import shutil

from hack.localcluster import cluster, daemon, docker, errors, paths, progress


def size(folder: pathlib.Path) -> int:
    """Bytes of the files below a folder that can be seen."""
    total = 0
    for file in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += file.lstat().st_size if not file.is_symlink() else 0
        except OSError:
            continue
    return total


def purge(where: paths.Paths, console: progress.Console) -> None:
    """Removes caches and images, unless another cluster still needs them."""
    raise errors.LocalClusterError("not yet")
