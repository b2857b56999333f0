"""`python -m benchmarks.serving`: requests a second and latency, as ratios within one run.

The servers get the first core and wrk the second. Rounds are interleaved, so that what
else the machine does falls on all alike; only the ratios mean anything. Needs wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import skops.io
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kedge_server import packing

DISTINCT_BODIES = 512
SERVER_CORE, CLIENT_CORE = 0, 1
# Connections that outnumber what a server can take starve at first; let them settle.
SETTLE_SECONDS = 1


def models(folder: Path) -> dict[str, Path]:
    """Packs the two models over digits: L, a linear pipeline, and F, a forest of 100."""
    rows, labels = load_digits(return_X_y=True)
    fitted = {
        "L": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, labels),
        "F": RandomForestClassifier(100, random_state=0).fit(rows, labels),
    }
    for name, model in fitted.items():
        packing.package(model, rows, folder / name, name="m")
        skops.io.dump(model, folder / f"{name}.skops")
    return {name: folder / name for name in fitted}


def bodies(folder: Path, rows: int) -> Path:
    data, _ = load_digits(return_X_y=True)
    dice = np.random.default_rng(0)
    path = folder / f"bodies-{rows}"
    with path.open("wb") as file:
        for _ in range(DISTINCT_BODIES):
            chosen = data[dice.integers(0, len(data), rows)]
            tensor = {"name": "x", "datatype": "FP64", "shape": chosen.shape, "data": chosen.ravel().tolist()}
            file.write(orjson.dumps({"parameters": {"method": "predict_proba"}, "inputs": [tensor]}) + b"\n")
    return path


class Server:
    """One server process, pinned to its core."""

    def __init__(self, name: str, command: list[str], port: int) -> None:
        self.name = name
        self.port = port
        self._process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )

    def wait_ready(self, body: bytes) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SystemExit(f"{self.name} ended by itself")
            try:
                if httpx.post(f"http://127.0.0.1:{self.port}/v2/models/m/infer", content=body).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"{self.name} did not get ready")

    def cpu_seconds(self) -> float:
        """Returns what the process has used: it tells costs apart even on a busy machine."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def load(server: Server, path: Path, connections: int, seconds: int) -> dict[str, float]:
    before = server.cpu_seconds()
    script = Path(__file__).with_name("distinct.lua")
    output = subprocess.run(
        ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s",
         "-s", str(script), f"http://127.0.0.1:{server.port}"],
        env={**os.environ, "BODIES": str(path), "TARGET": "/v2/models/m/infer"},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    result: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    result["cpuSeconds"] = server.cpu_seconds() - before
    return result


def bare_loop(model: Path, rows: int, seconds: float) -> float:
    """Calls a second of `predict_proba` on distinct rows, without any server."""
    code = (
        "import sys, time, numpy as np, skops.io\n"
        "from sklearn.datasets import load_digits\n"
        "from kedge_server import trees\n"
        "model = skops.io.load(sys.argv[1], trusted=[trees.TREE]); rows = int(sys.argv[2])\n"
        "X = load_digits(return_X_y=True)[0]; model.predict_proba(X[:rows]); n = 0\n"
        "end = time.perf_counter() + float(sys.argv[3])\n"
        "while time.perf_counter() < end:\n"
        "    s = (n * rows) % (len(X) - rows); model.predict_proba(X[s:s + rows]); n += 1\n"
        "print(n / float(sys.argv[3]))\n"
    )
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-c", code, str(model), str(rows), str(seconds)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def servers(folder: Path, model: str, wanted: list[str]) -> list[Server]:
    bare, package = folder / f"{model}.skops", folder / model
    kedge = [sys.executable, "-m", "kedge_server", "serve", "--host", "127.0.0.1", "--model-name", "m"]
    commands = {
        "minimal": [sys.executable, "-m", "benchmarks.serving.minimal", str(bare), "18201"],
        "kedge": [*kedge, "--model-path", str(package), "--port", "18202", "--max-connection-age-seconds", "3600"],
        "kedge without profile": [
            *kedge, "--model-path", str(bare), "--port", "18203", "--max-connection-age-seconds", "3600",
        ],
        "kedge compiled": [
            *kedge, "--model-path", str(package), "--port", "18204", "--max-connection-age-seconds", "3600",
            "--compile", "Auto",
        ],
        "kedge uncounted": [
            *kedge, "--model-path", str(package), "--port", "18205", "--max-connection-age-seconds", "3600",
            "--count-data", "false",
        ],
    }  # fmt: skip
    return [Server(name, commands[name], 18201 + i) for i, name in enumerate(commands) if name in wanted]


def measure(folder: Path, model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures every cell of one model; the servers run side by side and take turns."""
    found: list[dict[str, Any]] = []
    running = servers(folder, model, options.servers)
    try:
        for rows in options.rows:
            path = bodies(folder, rows)
            body = path.read_bytes().splitlines()[0]
            for server in running:
                server.wait_ready(body)
            bare = bare_loop(folder / f"{model}.skops", rows, options.seconds)
            for connections in options.connections:
                rounds: dict[str, list[dict[str, float]]] = {server.name: [] for server in running}
                for _ in range(options.rounds):
                    for server in running:
                        load(server, path, connections, SETTLE_SECONDS)
                        rounds[server.name].append(load(server, path, connections, options.seconds))
                cell = {"model": model, "rows": rows, "connections": connections, "bare": bare}
                found.append({**cell, "servers": {name: _summary(r) for name, r in rounds.items()}})
                print(_line(found[-1]), flush=True)
    finally:
        for server in running:
            server.stop()
    return found


def _summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {
        "requestsPerSecond": statistics.median(r["requests"] / r["microseconds"] * 1e6 for r in rounds),
        "requestsPerCpuSecond": statistics.median(r["requests"] / r["cpuSeconds"] for r in rounds),
        "p50Milliseconds": statistics.median(r["p50"] for r in rounds) / 1000,
        "p99Milliseconds": statistics.median(r["p99"] for r in rounds) / 1000,
        "errors": sum(r["errors"] for r in rounds),
    }


def _line(cell: dict[str, Any]) -> str:
    minimal = cell["servers"].get("minimal", {}).get("requestsPerSecond", float("nan"))
    parts = [f"{cell['model']} rows={cell['rows']:<3} connections={cell['connections']:<2} bare={cell['bare']:.0f}/s"]
    for name, s in cell["servers"].items():
        parts.append(
            f"{name}: {s['requestsPerSecond']:.0f}/s = {s['requestsPerSecond'] / minimal:.2f} R,"
            f" {s['requestsPerCpuSecond']:.0f} per CPU second,"
            f" p50 {s['p50Milliseconds']:.1f} p99 {s['p99Milliseconds']:.1f} ms, errors {s['errors']:.0f}"
        )
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["L", "F"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 100])
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--servers", nargs="+", default=["minimal", "kedge", "kedge without profile"])
    parser.add_argument("--seconds", type=int, default=5, help="length of one turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server in a cell")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models(folder)
        found = [cell for model in options.models for cell in measure(folder, model, options)]
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
