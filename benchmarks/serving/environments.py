"""Makes each peer's own Python environment, once, from its pinned requirements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".local" / "peers"


def python(peer: str) -> str:
    """Returns the interpreter of a peer's environment."""
    return str(FOLDER / peer / "bin" / "python")


def make(peer: str) -> None:
    """Makes the environment anew unless it is there from the same requirements."""
    pinned = ROOT / "requirements" / f"peer-{peer}.txt"
    made_from = FOLDER / peer / "made-from.txt"
    if made_from.exists() and made_from.read_text() == pinned.read_text():
        return
    print(f"making .local/peers/{peer} from requirements/{pinned.name}, once", flush=True)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER / peer)], check=True)
    command = [*uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python(peer), str(pinned)]
    subprocess.run(command, check=True)
    made_from.write_text(pinned.read_text())
