"""The Docker client: which program speaks to which daemon, and questions to ask it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping

from hack.localcluster import progress

HOST_VARIABLE = "DOCKER_HOST"
DEBIAN_CLIENT = "/usr/bin/docker"
OWNER_LABEL = "dev.kedge.localcluster"


@dataclasses.dataclass(frozen=True)
class Docker:
    """One client program and the daemon it is to use.

    `host` is None for whatever the client uses by itself: its context or default socket.
    """

    program: str
    host: str | None = None
    is_own: bool = False
    classic_builder: bool = False

    def environment(self) -> dict[str, str]:
        """The environment in which the client speaks to this daemon."""
        environment = dict(os.environ)
        if self.host is not None:
            environment[HOST_VARIABLE] = self.host
            environment.pop("DOCKER_CONTEXT", None)
        if self.classic_builder:
            environment["DOCKER_BUILDKIT"] = "0"
        return environment

    def command(self, *words: str) -> list[str]:
        """A command line of this client."""
        return [self.program, *words]

    def output(self, *words: str, timeout_seconds: float = 60) -> str | None:
        """What a command printed, or None when it failed."""
        return progress.output_of(self.command(*words), environment=self.environment(), timeout_seconds=timeout_seconds)

    def lines(self, *words: str) -> list[str]:
        """The words that a listing printed; none when it failed."""
        return (self.output(*words) or "").split()

    def run(
        self,
        console: progress.Console,
        *words: str,
        standard_input: pathlib.Path = pathlib.Path(os.devnull),
    ) -> None:
        """Runs a command with its output in the log; raises CommandError when it fails."""
        console.run(self.command(*words), environment=self.environment(), standard_input=standard_input)

    def answers(self) -> bool:
        """Whether the daemon is there and accepts this client."""
        return bool(self.output("version", "--format", "{{.Server.Version}}", timeout_seconds=5))

    def has_image(self, reference: str) -> bool:
        """Whether the daemon holds an image."""
        return self.output("image", "inspect", "--format", "{{.Id}}", reference) is not None

    def has_container(self, name: str) -> bool:
        """Whether there is a container of that name, running or not."""
        return self.output("container", "inspect", "--format", "{{.Id}}", name) is not None

    def is_running(self, name: str) -> bool:
        """Whether the container of that name runs."""
        state = self.output("container", "inspect", "--format", "{{.State.Running}}", name)
        return (state or "").strip() == "true"


def on_machine(environment: Mapping[str, str]) -> Docker | None:
    """The daemon that the machine's own client reaches, when one answers."""
    program = shutil.which("docker")
    if program is None:
        return None
    docker = Docker(program, environment.get(HOST_VARIABLE) or None)
    return docker if docker.answers() else None


def client_for(host: str) -> Docker | None:
    """A client that the daemon at that address accepts.

    The newest clients refuse a daemon as old as Debian's, whose own client then serves.
    """
    for program in (shutil.which("docker"), DEBIAN_CLIENT):
        if program is not None and os.access(program, os.X_OK):
            docker = Docker(program, host, is_own=True)
            if docker.answers():
                return docker
    return None
