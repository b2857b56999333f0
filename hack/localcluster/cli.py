"""The command line: what each command does, in the order in which it does it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from hack.localcluster import (
    cluster,
    daemon,
    docker,
    errors,
    firewall,
    gobuild,
    images,
    locks,
    machine,
    node_image,
    paths,
    progress,
    purging,
    tools,
)

DESCRIPTION = """\
A kind cluster for Kedge's end-to-end tests and demo. Docker is used where it runs; on a
Debian 12 machine without it, root gets it installed and started. The node image is pulled
where an image registry answers, and built from source and cached where none does."""

Command = Callable[[paths.Paths, progress.Console], None]


def up(where: paths.Paths, console: progress.Console) -> None:
    """Makes everything that is missing until the cluster is ready."""
    with locks.held(where.state / "lock", announce=console.say):
        machine.require_docker_or_root(_facts(where))
        with daemon.used(where):
            found = daemon.ensure(where, console)
            wanted = cluster.Cluster(where, console, found)
            if wanted.exists():
                tools.ensure(where, console, found)
                _open_firewall(found)
                if _is_usable(where, wanted):
                    _say_ready(where, console)
                    return
                console.say("the cluster is broken or out of date")
                cluster.remove(where, found, console)
            with gobuild.build_files(where):
                image = cluster.choose_image(where, console, found, _facts(where))
                tools.ensure(where, console, found)
            wanted.create(image)
            _open_firewall(found)
    _say_ready(where, console)


def _open_firewall(found: docker.Docker) -> None:
    if found.is_own:
        firewall.open_for(found)


def _say_ready(where: paths.Paths, console: progress.Console) -> None:
    console.say(f"cluster {where.cluster_name} is ready")
    record = cluster.read_record(where)
    if record is not None and record.node_image not in (node_image.PULLED, node_image.reference()):
        console.say("the node image's recipe has changed since: `down` and `up` makes it anew")


def _is_usable(where: paths.Paths, wanted: cluster.Cluster) -> bool:
    record = cluster.read_record(where)
    if record is None or record.configuration != cluster.configuration_key(where):
        return False
    if not wanted.is_running():
        return False
    wanted.write_kubeconfig()
    return wanted.wait_ready(cluster.SERVE_SECONDS)


def _facts(where: paths.Paths) -> machine.Facts:
    return machine.read(docker_answers=daemon.find(where) is not None)


def load_images(where: paths.Paths, console: progress.Console) -> None:
    """Builds Kedge's images and loads them into the node."""
    with locks.held(where.state / "lock", announce=console.say), daemon.used(where):
        found = _running_cluster(where, console)
        references = images.ensure(where, console, found)
    console.say(f"the node has {' and '.join(references.values())}")


def _running_cluster(where: paths.Paths, console: progress.Console) -> docker.Docker:
    found = daemon.find(where)
    if found is None or not cluster.Cluster(where, console, found).is_running():
        raise errors.LocalClusterError("the cluster does not run: start it with `python3 -m hack.localcluster up`.")
    return found


def down(where: paths.Paths, console: progress.Console) -> None:
    """Deletes the cluster and stops our daemon; what was cached stays."""
    with locks.held(where.state / "lock", announce=console.say):
        found = daemon.find(where)
        if found is not None:
            cluster.remove(where, found, console)
        console.say(daemon.stop(where, console))


def purge(where: paths.Paths, console: progress.Console) -> None:
    """Goes down, then removes all that this tool made outside the checkout."""
    down(where, console)
    purging.purge(where, console)


def status(where: paths.Paths, _console: progress.Console) -> None:
    """Prints what there is, one fact a line."""
    found = daemon.find(where)
    record = cluster.read_record(where)
    whose = "none answers" if found is None else "our own" if found.is_own else "the machine's"
    runs = found is not None and found.is_running(where.node_name)
    print(f"docker:     {whose}")
    print(f"cluster:    {where.cluster_name}, {'running' if runs else 'not running'}")
    print(f"node image: {record.node_image if record else 'none'}")
    print(f"kubeconfig: {where.kubeconfig if where.kubeconfig.is_file() else 'none'}")
    if where.image_record.is_file():
        print(f"images:     {', '.join(json.loads(where.image_record.read_text()).values())}")
    print(f"cache:      {where.cache}, {purging.size_bytes(where.cache) / 1024**3:.1f} GiB")


def environment_lines(where: paths.Paths) -> str:
    """Shell lines that a person evaluates to talk to this checkout's cluster."""
    added = cluster.added_environment(where, daemon.find(where), os.environ)
    added.pop("PATH")
    lines = [f"export {name}={shlex.quote(value)}" for name, value in added.items()]
    return "\n".join([*lines, f'export PATH={shlex.quote(str(where.bin))}:"$PATH"'])


def execute(where: paths.Paths, command: Sequence[str]) -> int:
    if not command:
        raise errors.LocalClusterError("exec needs a command, as in: exec -- kubectl get nodes")
    environment = cluster.environment(where, daemon.find(where))
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except OSError as error:
        raise errors.LocalClusterError(f"{command[0]} cannot be run: {error.strerror}.") from error


COMMANDS: dict[str, tuple[Command, str]] = {
    "up": (up, "make everything that is missing until the cluster is ready"),
    "images": (load_images, "build Kedge's images and load them into the node"),
    "status": (status, "say what there is"),
    "down": (down, "delete the cluster and stop what this tool started; the caches stay"),
    "purge": (
        purge,
        "go down and remove caches and images; only Debian packages stay installed",
    ),
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python3 -m hack.localcluster", description=DESCRIPTION)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    text = 'print `export` lines: eval "$(python3 -m hack.localcluster env)"'
    commands.add_parser("env", help=text, description=text)
    text = "run a command with the cluster's KUBECONFIG, DOCKER_HOST and PATH"
    run = commands.add_parser("exec", help=text, description=text)
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    return made


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    os.environ["PATH"] = machine.path_with_system(os.environ)
    try:
        return _dispatch(arguments, paths.discover(os.environ))
    except errors.LocalClusterError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, errors.UnsuitableMachineError) else 1
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: argparse.Namespace, where: paths.Paths) -> int:
    if arguments.command == "env":
        print(environment_lines(where))
        return 0
    if arguments.command == "exec":
        return execute(where, arguments.words[arguments.words[:1] == ["--"] :])
    run, _ = COMMANDS[arguments.command]
    run(where, progress.Console(where.logs / f"{arguments.command}.log"))
    return 0
