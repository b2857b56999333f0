"""Removal of everything that this tool keeps outside the checkout."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

from hack.localcluster import cluster, daemon, docker, errors, images, ledger, paths, progress


def size_bytes(folder: pathlib.Path) -> int:
    """The disk that a folder takes, without what is mounted below it.

    Files come and go while a daemon works there, which makes du's exit status meaningless.
    """
    command = ["du", "--summarize", "--one-file-system", "--block-size=1", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return int(said[0]) if said else 0


def purge(where: paths.Paths, console: progress.Console) -> None:
    """Removes caches and images.

    Raises:
        errors.LocalClusterError: another checkout's cluster still needs them.
    """
    found = daemon.find(where)
    if found is not None:
        _require_unused(found)
    with console.step("removing caches and images"):
        if found is not None:
            _remove_from(found, where)
        packages = ledger.noted(where, ledger.PACKAGE)
        daemon.discard(where, console)
        console.run(["rm", "--recursive", "--force", where.cache])
        shutil.rmtree(where.bin, ignore_errors=True)
    if packages:
        console.say(f"Debian's {', '.join(packages)} stay installed: apt-get remove takes them away")


def _require_unused(found: docker.Docker) -> None:
    others = [name for name in daemon.containers(found) if name.startswith(cluster.PREFIX)]
    if others:
        names = ", ".join(name.removesuffix("-control-plane") for name in others)
        raise errors.LocalClusterError(
            f"other clusters use the same caches: {names}. Run `down` in their checkouts (or here, "
            f"with {paths.CLUSTER_VARIABLE} set to each name), then purge again."
        )


def _remove_from(found: docker.Docker, where: paths.Paths) -> None:
    """Removes from a daemon that goes on what came from us."""
    for label in (docker.OWNER_LABEL, images.CHECKOUT_LABEL):
        listing = ("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"label={label}")
        ours = [name for name in found.lines(*listing) if not name.endswith(":<none>")]
        if ours:
            found.output("rmi", *ours)
    for image in ledger.noted(where, ledger.IMAGE):
        found.output("rmi", image)
    for network in ledger.noted(where, ledger.NETWORK):
        found.output("network", "rm", network)
