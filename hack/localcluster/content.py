"""Keys that name things after what defines them, so that a cache can never be stale."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterable

KEY_LENGTH = 12
# What Python and the compiler leave beside their sources; images make their own.
_MADE = (".pyc", ".so")


def files_below(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder (or the file itself) without what was made from it."""
    if path.is_file():
        return [path]
    return sorted(
        found
        for found in path.rglob("*")
        if found.is_file() and "__pycache__" not in found.parts and found.suffix not in _MADE
    )


def key(root: pathlib.Path, files: Iterable[pathlib.Path], extra: Iterable[str] = ()) -> str:
    """Hashes names (relative to root), modes and contents of files, and words beside them."""
    digest = hashlib.sha256()
    for word in extra:
        _add(digest, b"word", word.encode())
    for path in sorted(set(files)):
        executable = b"x" if path.stat().st_mode & 0o100 else b"-"
        _add(digest, path.relative_to(root).as_posix().encode(), executable, path.read_bytes())
    return digest.hexdigest()[:KEY_LENGTH]


def _add(digest: hashlib._Hash, *parts: bytes) -> None:
    """Adds parts with their lengths: without those, two lists could run together alike."""
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
