"""File locks between checkouts, and writing that is seen whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def held(path: pathlib.Path, *, shared: bool = False, announce: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds a lock, waiting for it; the kernel frees it should this process die.

    Where it has to wait it announces so, lest a person take it for stuck.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as file:
        try:
            fcntl.flock(file, wanted | fcntl.LOCK_NB)
        except OSError:
            if announce is not None:
                announce(f"waiting for another run, which holds {path} ...")
            fcntl.flock(file, wanted)
        yield


@contextlib.contextmanager
def attempted(path: pathlib.Path) -> Iterator[bool]:
    """Holds a lock if nobody else holds it, and yields whether it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


@contextlib.contextmanager
def scratch_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder to work in, and removes it; the caller holds a lock on it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _temporary(target: pathlib.Path) -> pathlib.Path:
    """A name beside the target that no other process uses."""
    return target.with_name(f".{target.name}.{os.getpid()}")


@contextlib.contextmanager
def new_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder that becomes the target when the block ends without error.

    The caller holds the target's lock, so what is found half-made was abandoned.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(abandoned)
    temporary = _temporary(target)
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_file(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write to that becomes the target when the block ends without error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: pathlib.Path, text: str) -> None:
    with new_file(target) as temporary:
        temporary.write_text(text)
