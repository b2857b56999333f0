"""An OCI runtime that is runc without CAP_SYS_RESOURCE.

Where the bounding set of the machine lacks that capability nobody can grant it, and
runc refuses a privileged container that asks for it. So it is taken out of what the
container (`--bundle`) or the process executed in one (`--process`) asks for.
"""

import json
import os
import pathlib
import sys

CAPABILITY = "CAP_SYS_RESOURCE"


def argument(words: list[str], name: str) -> str | None:
    for position, word in enumerate(words):
        if word == name and position + 1 < len(words):
            return words[position + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def drop(path: pathlib.Path) -> None:
    specification = json.loads(path.read_text())
    process = specification.get("process", specification)
    for granted in (process.get("capabilities") or {}).values():
        if isinstance(granted, list) and CAPABILITY in granted:
            granted.remove(CAPABILITY)
    path.write_text(json.dumps(specification))


def main(words: list[str]) -> None:
    bundle = argument(words, "--bundle") or argument(words, "-b")
    process = argument(words, "--process") or argument(words, "-p")
    if bundle is not None and ("create" in words or "run" in words):
        drop(pathlib.Path(bundle) / "config.json")
    if process is not None and "exec" in words:
        drop(pathlib.Path(process))
    os.execvp("runc", ["runc", *words])


if __name__ == "__main__":
    main(sys.argv[1:])
