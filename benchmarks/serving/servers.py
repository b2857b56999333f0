"""The servers that are compared: how each is started, stopped for others' turns, and asked."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
from benchmarks.serving import environments, models

SERVER_CORE, CLIENT_CORE = 0, 1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PEERS = Path(__file__).with_name("peers")

# Above what any cell takes, so that no connection ends during a turn.
_AGE = ("--max-connection-age-seconds", "3600")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One line of the comparison.

    Attributes:
        command: After the interpreter; {folder}, {model} and {port} are filled in.
        wire: How it is asked.
        peer: The environment that it runs in; None is Kedge's own.
    """

    command: tuple[str, ...]
    wire: models.Wire = models.OPEN_INFERENCE
    peer: str | None = None


def _kedge(model: str, *options: str) -> Kind:
    serve = ("-m", "kedge_server", "serve", "--host", "127.0.0.1", "--port", "{port}", "--model-name", "m", *_AGE)
    return Kind((*serve, "--model-path", model, *options))


def _peer(name: str, wire: models.Wire, *settings: str) -> Kind:
    return Kind((str(PEERS / f"with_{name}.py"), "{folder}/{model}.joblib", "{port}", *settings), wire, name)


KINDS: dict[str, Kind] = {
    "minimal": Kind(("-m", "benchmarks.serving.minimal", "{folder}/{model}.skops", "{port}")),
    "kedge": _kedge("{folder}/{model}"),
    "kedge uncounted": _kedge("{folder}/{model}", "--count-data", "false"),
    "kedge compiled": _kedge("{folder}/{model}", "--compile", "Auto"),
    "mlserver": _peer("mlserver", models.OPEN_INFERENCE),
    "mlserver batching": _peer("mlserver", models.OPEN_INFERENCE, "batching"),
    "fastapi": _peer("fastapi", models.ROWS),
    "bentoml": _peer("bentoml", models.ROWS, "batching"),
    "litserve": _peer("litserve", models.ROWS, "batching"),
}


class Server:
    """One server's processes, pinned to their core; outside its turns it stands still.

    Even an idle server can use its core (some poll), so only one at a time is let run.
    """

    def __init__(self, name: str, folder: Path, model: str) -> None:
        self.name = name
        self.kind = KINDS[name]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        python = sys.executable if self.kind.peer is None else environments.python(self.kind.peer)
        fill = {"folder": folder, "model": model, "port": self.port}
        self._log = folder / f"{model}-{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(SERVER_CORE), python, *(part.format(**fill) for part in self.kind.command)],
                env={**os.environ, **ONE_THREAD},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, rows: Any, expected: Any) -> None:
        """Returns when it answers, and as the model does."""
        url = f"http://127.0.0.1:{self.port}{self.kind.wire.path}"
        body = orjson.dumps(self.kind.wire.ask(rows))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=20)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                found = np.array(self.kind.wire.read(answer.json())).reshape(expected.shape)
                if not np.allclose(found, expected, atol=1e-6):
                    raise SystemExit(f"{self.name} answers otherwise than the model")
                return
            time.sleep(0.1)
        tail = self._log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{self.name} did not get ready; the end of its log:\n{tail}")

    def pause(self) -> None:
        """Stops its processes until it is their turn."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets its processes run."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Returns what its processes have used: it tells costs apart even on a busy machine."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self._process.pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
