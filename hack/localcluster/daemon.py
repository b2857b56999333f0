"""Our own Docker daemon, for machines where none runs.

It has its own socket, state and images, and no bridge but the ones that kind asks for,
so that it disturbs no other daemon. All checkouts that share a cache share it. A daemon
that somebody else runs is used as it is and never stopped.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from hack.localcluster import docker, errors, firewall, locks, machine, packages, paths, progress

START_SECONDS = 60
STOP_SECONDS = 40
PROGRAMS = {"dockerd": "docker.io", "runc": "runc", "iptables": "iptables"}
WRAPPER = pathlib.Path(__file__).parent / "node" / "runtime" / "without_sys_resource.py"


def socket(where: paths.Paths) -> pathlib.Path:
    return where.runtime / "docker.sock"


def host(where: paths.Paths) -> str:
    return f"unix://{socket(where)}"


def folder(where: paths.Paths) -> pathlib.Path:
    return where.cache / "docker"


def running(where: paths.Paths) -> docker.Docker | None:
    """Our daemon, when it answers."""
    return docker.client_for(host(where)) if socket(where).exists() else None


def find(where: paths.Paths) -> docker.Docker | None:
    """The daemon to use, when one answers: the machine's before our own.

    The variable that `env` exports may name our own, which must not pass for the machine's.
    """
    if os.environ.get(docker.HOST_VARIABLE) == host(where):
        return running(where)
    return docker.on_machine(os.environ) or running(where)


@contextlib.contextmanager
def used(where: paths.Paths) -> Iterator[None]:
    """Keeps our daemon from being stopped while this process needs it."""
    with locks.held(folder(where) / "users.lock", shared=True):
        yield


def ensure(where: paths.Paths, console: progress.Console) -> docker.Docker:
    """Returns a daemon that answers, starting our own where there is none."""
    found = find(where)
    if found is not None:
        return found
    packages.ensure(where, console, PROGRAMS)
    # Where systemd runs, installing the package has just started the machine's daemon.
    found = find(where)
    if found is not None:
        return found
    with locks.held(folder(where) / "start.lock"):
        found = running(where)
        if found is None:
            with console.step("starting a Docker daemon of our own"):
                found = _start(where)
                _remove_containers(found, console)
    return found


def _start(where: paths.Paths) -> docker.Docker:
    _clear_leftovers(where)
    where.runtime.mkdir(parents=True, exist_ok=True)
    log = folder(where) / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(where),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if socket(where).exists() and (found := running(where)) is not None:
            return found
        time.sleep(0.2)
    said = progress.last_lines(log.read_text(errors="replace"))
    raise errors.LocalClusterError(f"the Docker daemon did not start; the end of {log}:\n{said}")


def _command(where: paths.Paths) -> list[str]:
    command = ["dockerd", f"--host={host(where)}", "--bridge=none", "--iptables=false"]
    command += [f"--data-root={folder(where) / 'data'}", f"--exec-root={where.runtime / 'exec'}"]
    command += [f"--pidfile={where.runtime / 'dockerd.pid'}", "--log-level=warn"]
    if machine.lacks_sys_resource(pathlib.Path("/proc/self/status").read_text()):
        command += [f"--add-runtime=kedge={_install_wrapper(where)}", "--default-runtime=kedge"]
    return command


def _install_wrapper(where: paths.Paths) -> pathlib.Path:
    """Puts the runtime beside the daemon's state, which outlives any one checkout."""
    python = pathlib.Path(sys.executable).resolve()
    script = folder(where) / WRAPPER.name
    runtime = folder(where) / "runtime"
    locks.write_text(script, WRAPPER.read_text())
    locks.write_text(runtime, f'#!/bin/sh\nexec {python} -I -S {script} "$@"\n')
    runtime.chmod(0o755)
    return runtime


def _remove_containers(found: docker.Docker, console: progress.Console) -> None:
    """Clears what a killed session left: no node of a cluster survives its daemon."""
    dead = found.lines("ps", "--all", "--quiet")
    if dead:
        found.run(console, "rm", "--force", "--volumes", *dead)


def pids(where: paths.Paths) -> list[int]:
    """Our daemon's processes, known by the run directory in their command lines."""
    return _processes_below(where.runtime, "dockerd")


def _processes_below(runtime: pathlib.Path, *names: str) -> list[int]:
    return [
        pid
        for name in names
        for pid, words in machine.processes(name).items()
        if any(str(runtime) in word for word in words)
    ]


def _clear_leftovers(where: paths.Paths) -> None:
    """Removes the run directory of a daemon that was killed.

    While a container still lives there, the daemon itself has to find and end it, and needs
    its run directory for that; only the process id is then taken away, since another process
    may have it by now.
    """
    (where.runtime / "dockerd.pid").unlink(missing_ok=True)
    socket(where).unlink(missing_ok=True)
    if not _processes_below(where.runtime, "containerd", "containerd-shim-runc-v2"):
        _unmount_below(where.runtime)
        _unmount_below(folder(where))
        shutil.rmtree(where.runtime, ignore_errors=True)


def _unmount_below(path: pathlib.Path) -> None:
    mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if mount.startswith(f"{path}/"):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def containers(found: docker.Docker) -> list[str]:
    return found.lines("ps", "--all", "--format", "{{.Names}}")


def stop(where: paths.Paths, console: progress.Console) -> str:
    """Stops our daemon unless somebody still needs it, and says what became of it."""
    with locks.held(folder(where) / "start.lock"):
        if not pids(where):
            _clear_leftovers(where)
            return "our own Docker daemon does not run"
        found = running(where)
        if found is not None and (names := containers(found)):
            return f"our Docker daemon goes on: it still runs {', '.join(names)}"
        with locks.attempted(folder(where) / "users.lock") as is_alone:
            if not is_alone:
                return "our Docker daemon goes on: another checkout is using it"
            if found is not None:
                _remove_networks(found, console)
            _end(where)
        _clear_leftovers(where)
        return "our Docker daemon is stopped"


def _remove_networks(found: docker.Docker, console: progress.Console) -> None:
    """Removes the bridges and their firewall rules, which would outlive the daemon."""
    firewall.close_for(found)
    networks = found.lines("network", "ls", "--quiet", "--filter", "type=custom")
    if networks:
        found.run(console, "network", "rm", *networks)


def discard(where: paths.Paths, console: progress.Console) -> None:
    """Ends our daemon for good, and removes the networks of one that was killed, which only it knows.

    Raises:
        errors.LocalClusterError: it is still needed.
    """
    if (folder(where) / "data").is_dir():
        with locks.held(folder(where) / "start.lock"):
            if not pids(where):
                _remove_containers(_start(where), console)
        said = stop(where, console)
        if pids(where):
            raise errors.LocalClusterError(f"{said}; purge again when it is not.")
    _unmount_below(folder(where))
    with contextlib.suppress(OSError):
        where.runtime.parent.rmdir()


def _end(where: paths.Paths) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids(where):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while pids(where) and time.monotonic() < deadline:
            time.sleep(0.2)
        if not pids(where):
            return
    raise errors.LocalClusterError("our Docker daemon does not end; see the process list.")
