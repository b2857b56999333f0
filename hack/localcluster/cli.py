"""The command line: what each command does, in the order in which it does it."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from hack.localcluster import cluster, daemon, docker, errors, machine, paths, progress, tools

DESCRIPTION = """\
A kind cluster for Kedge's end-to-end tests and demo. Docker is used where it runs; on a
Debian 12 machine without it, root gets it installed and started. The node image is pulled
where an image registry answers, and built from source and cached where none does."""


def up(where: paths.Paths, console: progress.Console) -> None:
    machine.require_docker_or_root(facts(where))
    found = daemon.ensure(where, console)
    with daemon.used(where):
        tools.ensure(where, console, found)
        wanted = cluster.Cluster(where, console, found)
        if wanted.exists():
            if usable(where, wanted):
                console.say(f"cluster {where.cluster_name} is ready")
                return
            with console.step("deleting a cluster that is broken or out of date"):
                wanted.delete()
        image = cluster.choose_image(where, console, found, facts(where))
        wanted.create(image)
    console.say(f"cluster {where.cluster_name} is ready")


def usable(where: paths.Paths, wanted: cluster.Cluster) -> bool:
    record = cluster.read_record(where)
    if record is None or record.configuration != cluster.configuration_key(where):
        return False
    if not wanted.is_running():
        return False
    wanted.write_kubeconfig()
    return wanted.wait_ready(cluster.SERVE_SECONDS)


def facts(where: paths.Paths) -> machine.Facts:
    return machine.read(docker_answers=daemon.find(where) is not None)


def main(words: Sequence[str] | None = None) -> int:
    where = paths.discover(os.environ)
    console = progress.Console(where.logs / "up.log")
    try:
        up(where, console)
    except errors.UnsuitableMachineError as error:
        print(error, file=sys.stderr)
        return 2
    except errors.LocalClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
