"""Debian packages that the recipe needs, installed by root when a program is missing."""

from __future__ import annotations

import os
import shutil

from hack.localcluster import ledger, machine, paths, progress


def ensure(where: paths.Paths, console: progress.Console, programs: dict[str, str]) -> None:
    """Installs the packages of those programs (program -> package) that are not there."""
    missing = machine.unique(package for program, package in programs.items() if shutil.which(program) is None)
    if not missing:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with console.step(f"installing Debian's {', '.join(missing)}"):
        console.run(["apt-get", "update"], environment=environment)
        console.run(
            ["apt-get", "install", "--yes", "--no-install-recommends", *missing],
            environment=environment,
        )
    ledger.note(where, ledger.PACKAGE, missing)
