"""Tells the person what is going on, and keeps the children's output out of their way.

Each step is a line at its start and one at its end. What the children print goes to a
log file, which is named, with its last lines, when one of them fails.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from hack.localcluster import errors

LAST_LINES = 15


class Console:
    """Progress lines on standard error and a log file for the children of one command."""

    def __init__(self, log: pathlib.Path) -> None:
        self.log = log
        self._started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def say(self, text: str) -> None:
        """Prints a line with the seconds since the command started."""
        elapsed = time.monotonic() - self._started
        print(f"[{elapsed:4.0f}s] {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def step(self, doing: str, hint: str = "") -> Iterator[None]:
        """Prints that a step starts, and how long it took once it is done."""
        self.say(f"{doing}{f' ({hint})' if hint else ''} ...")
        before = time.monotonic()
        yield
        self.say(f"{doing}: done in {time.monotonic() - before:.0f} s")

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        environment: Mapping[str, str] | None = None,
        folder: pathlib.Path | None = None,
        standard_input: pathlib.Path = pathlib.Path(os.devnull),
        timeout_seconds: float | None = None,
    ) -> None:
        """Runs a command with its output in the log.

        Raises:
            errors.CommandError: it could not be started, failed or ran out of time.
        """
        with self.log.open("ab") as log, standard_input.open("rb") as given:
            log.write(f"$ {shlex.join(os.fspath(word) for word in command)}\n".encode())
            log.flush()
            try:
                subprocess.run(
                    command,
                    env=environment,
                    cwd=folder,
                    stdin=given,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=timeout_seconds,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise errors.CommandError(self.failure(command, error)) from error

    def failure(self, command: Sequence[str | os.PathLike[str]], error: Exception, output: str = "") -> str:
        """Describes a failed child with the end of what it said."""
        name = " ".join(os.fspath(word) for word in command[:3])
        match error:
            case subprocess.CalledProcessError():
                reason = f"exit status {error.returncode}"
            case subprocess.TimeoutExpired():
                reason = f"no end within {error.timeout:.0f} s"
            case _:
                reason = str(error)
        if output:
            return f"{name} failed ({reason}):\n{last_lines(output)}"
        said = last_lines(self.log.read_text(errors="replace"))
        return f"{name} failed ({reason}); the end of {self.log}:\n{said}"


def last_lines(text: str, count: int = LAST_LINES) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines()[-count:])


def output_of(
    command: Sequence[str | os.PathLike[str]],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 60,
) -> str | None:
    """What a command printed, or None when it failed: for questions that may be answered no."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
