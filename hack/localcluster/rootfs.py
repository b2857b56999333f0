"""Debian root file systems made by debootstrap, and images made of them.

Debootstrap gets its packages from the mirror that it is set up for.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Sequence

from hack.localcluster import docker, errors, locks, packages, paths, progress

SUITE = "bookworm"
HOST_CERTIFICATES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
# Mounts made below a root file system must end with the command that made them: what is left
# mounted would be deleted together with the folder.
ISOLATED = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


def bootstrap(where: paths.Paths, console: progress.Console, target: pathlib.Path, include: Sequence[str]) -> None:
    """Makes a minimal Debian with these packages in a folder."""
    packages.ensure(where, console, {"debootstrap": "debootstrap", "gpgv": "gpgv"})
    console.run(
        [*ISOLATED, "debootstrap", "--variant=minbase", f"--include={','.join(include)}", SUITE, target],
        environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "TMPDIR": "/tmp"},
    )
    for name in ("etc/resolv.conf", "etc/hostname"):
        (target / name).unlink(missing_ok=True)
    for name in UNUSED:
        empty(target / name)
    for name in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        empty(target / name)


def empty(folder: pathlib.Path) -> None:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def execute(root: pathlib.Path, *command: str) -> str:
    """Runs a command in the root file system and returns what it printed.

    Raises:
        errors.CommandError: it failed.
    """
    done = subprocess.run(
        ["chroot", root, *command],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = progress.last_lines(done.stderr)
        raise errors.CommandError(f"{' '.join(command)} failed in {root}:\n{said}")
    return done.stdout


def archive(console: progress.Console, root: pathlib.Path, target: pathlib.Path) -> None:
    """Packs the root file system without what a container gets from the kernel."""
    compressor = "pigz" if shutil.which("pigz") else "gzip"
    with locks.new_file(target) as new:
        console.run(
            [
                "tar",
                f"--directory={root}",
                "--create",
                f"--file={new}",
                f"--use-compress-program={compressor} -1",
                "--numeric-owner",
                "--xattrs",
                *(f"--exclude=./{name}/*" for name in ("dev", "proc", "sys", "run", "tmp")),
                ".",
            ]
        )


def load(
    console: progress.Console,
    daemon: docker.Docker,
    packed: pathlib.Path,
    reference: str,
    changes: Sequence[str],
) -> None:
    """Makes a Docker image of a packed root file system."""
    words = [f"--change={change}" for change in (*changes, f"LABEL {docker.OWNER_LABEL}=true")]
    daemon.run(console, "import", *words, str(packed), reference)
