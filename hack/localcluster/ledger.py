"""What this tool made in places that it does not own, to be removed again by `purge`.

One line a thing, `kind name`, in a file of the cache.
"""

from __future__ import annotations

from collections.abc import Iterable

from hack.localcluster import locks, paths

IMAGE = "image"
NETWORK = "network"
PACKAGE = "package"


def _lines(where: paths.Paths) -> list[str]:
    file = where.cache / "ledger"
    return file.read_text().splitlines() if file.is_file() else []


def note(where: paths.Paths, kind: str, names: Iterable[str]) -> None:
    """Remembers that these things exist because of us."""
    with locks.held(where.cache / "ledger.lock"):
        lines = dict.fromkeys([*_lines(where), *(f"{kind} {name}" for name in names)])
        locks.write_text(where.cache / "ledger", "".join(f"{line}\n" for line in lines))


def noted(where: paths.Paths, kind: str) -> list[str]:
    return [line.removeprefix(f"{kind} ") for line in _lines(where) if line.startswith(f"{kind} ")]
