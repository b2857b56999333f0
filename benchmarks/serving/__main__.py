"""`python -m benchmarks.serving`: whole servers side by side, as ratios within one run.

The server whose turn it is gets the first core and wrk the second; the other servers
stand still. Rounds are interleaved, so that what else the machine does falls on all
alike; only the ratios mean anything. Each cell that is measured replaces the stored one,
so a long run can be made in pieces. Needs wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving import environments, models, page
from benchmarks.serving.servers import CLIENT_CORE, KINDS, ONE_THREAD, SERVER_CORE, Server

# Load before each measured turn, and then none: connections that outnumber what a
# server can take starve at first, and what the load left behind is worked off.
SETTLE_SECONDS, PAUSE_SECONDS = 1, 0.3


def load(server: Server, path: Path, connections: int, seconds: int) -> dict[str, float]:
    """Asks as fast as `connections` clients can, and returns what wrk saw."""
    before = server.cpu_seconds()
    script = Path(__file__).with_name("distinct.lua")
    output = subprocess.run(
        ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s",
         "-s", str(script), f"http://127.0.0.1:{server.port}"],
        env={**os.environ, "BODIES": str(path), "TARGET": server.kind.wire.path},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    result: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    result["cpuSeconds"] = server.cpu_seconds() - before
    return result


def turn(server: Server, path: Path, connections: int, seconds: int) -> dict[str, float]:
    """Lets one server run, alone, and measures it."""
    server.resume()
    try:
        load(server, path, connections, SETTLE_SECONDS)
        time.sleep(PAUSE_SECONDS)
        return load(server, path, connections, seconds)
    finally:
        server.pause()


def bare_loop(model: Path, rows: int, seconds: float) -> float:
    """Returns calls a second of `predict_proba` on distinct rows, without any server."""
    code = (
        "import sys, time, joblib\n"
        "from sklearn.datasets import load_digits\n"
        "model = joblib.load(sys.argv[1]); rows = int(sys.argv[2])\n"
        "X = load_digits(return_X_y=True)[0]; model.predict_proba(X[:rows]); n = 0\n"
        "end = time.perf_counter() + float(sys.argv[3])\n"
        "while time.perf_counter() < end:\n"
        "    s = (n * rows) % (len(X) - rows); model.predict_proba(X[s:s + rows]); n += 1\n"
        "print(n / float(sys.argv[3]))\n"
    )
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-c", code, str(model), str(rows), str(seconds)]
    env = {**os.environ, **ONE_THREAD}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def measure(folder: Path, model: str, fitted: Any, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields every cell of one model as it has been measured; the servers take turns in each round."""
    running: list[Server] = []
    try:
        for name in options.servers:
            running.append(Server(name, folder, model))
            # One row and many: some servers treat them differently.
            for rows in options.rows:
                sample = models.drawn(rows)[0]
                running[-1].wait_ready(sample, fitted.predict_proba(sample))
            running[-1].pause()
        for rows in options.rows:
            for connections in options.connections:
                rounds: dict[str, list[dict[str, float]]] = {server.name: [] for server in running}
                bare: list[float] = []
                for _ in range(options.rounds):
                    bare.append(bare_loop(folder / f"{model}.joblib", rows, 1))
                    for server in running:
                        path = models.write_bodies(folder, rows, server.kind.wire)
                        rounds[server.name].append(turn(server, path, connections, options.seconds))
                cell = {"model": model, "rows": rows, "connections": connections, "bare": statistics.median(bare)}
                cell |= {"rounds": options.rounds, "seconds": options.seconds, "code": last_change()}
                yield {**cell, "servers": {name: _summary(r) for name, r in rounds.items()}}
    finally:
        for server in running:
            server.stop()


def _summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    speeds = [r["requests"] / r["microseconds"] * 1e6 for r in rounds]
    return {
        "requestsPerSecond": statistics.median(speeds),
        # For ratios of servers within each round, from which what the machine did meanwhile drops out.
        "requestsPerSecondByRound": [round(speed, 1) for speed in speeds],
        "requestsPerCpuSecond": statistics.median(r["requests"] / max(r["cpuSeconds"], 0.01) for r in rounds),
        "p50Milliseconds": statistics.median(r["p50"] for r in rounds) / 1000,
        "p99Milliseconds": statistics.median(r["p99"] for r in rounds) / 1000,
        "errors": sum(r["errors"] for r in rounds),
    }


def _line(cell: dict[str, Any]) -> str:
    parts = [f"{cell['model']} rows={cell['rows']} connections={cell['connections']} bare={cell['bare']:.0f}/s"]
    for name, s in cell["servers"].items():
        ratio = page.ratio(cell, name, "minimal") if "minimal" in cell["servers"] else float("nan")
        parts.append(
            f"  {name}: {s['requestsPerSecond']:.0f}/s = {ratio:.2f} R,"
            f" {s['requestsPerCpuSecond']:.0f} per CPU second,"
            f" p50 {s['p50Milliseconds']:.1f} p99 {s['p99Milliseconds']:.1f} ms, errors {s['errors']:.0f}"
        )
    return "\n".join(parts)


def last_change() -> str:
    """Returns the commit that changed the model server last, and its day."""
    command = ["git", "log", "-1", "--format=%h of %cs", "--", "model_server"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def processor() -> str:
    """Returns what the machine calls its processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def merged(stored: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Returns the stored results with `found` in place of the same cell."""
    results: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {"cells": []}
    cells = [cell for cell in results["cells"] if _key(cell) != _key(found)] + [found]
    return {
        "processor": processor(),
        "python": platform.python_version(),
        "cells": sorted(cells, key=lambda cell: ("LF".index(cell["model"]), cell["rows"], cell["connections"])),
    }


def _key(cell: dict[str, Any]) -> tuple[str, int, int]:
    return cell["model"], cell["rows"], cell["connections"]


def main() -> None:
    """Measures the chosen cells, stores them and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=["L", "F"], default=["L", "F"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 100])
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--servers", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seconds", type=int, default=3, help="length of one turn (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server in a cell (default %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("docs/serving"), help="where page and results are written")
    parser.add_argument("--page-only", action="store_true", help="write the page again from the stored results")
    options = parser.parse_args()
    stored: Path = options.folder / "results.json"
    if not options.page_only:
        if shutil.which("wrk") is None:
            raise SystemExit("wrk is needed (Debian: apt-get install wrk)")
        for peer in sorted({peer for name in options.servers if (peer := KINDS[name].peer) is not None}):
            environments.make(peer)
        options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fitted = models.make(folder)
            for model in options.models:
                for cell in measure(folder, model, fitted[model], options):
                    print(_line(cell), flush=True)
                    stored.write_text(json.dumps(merged(stored, cell), indent=1) + "\n")
    page.write(json.loads(stored.read_text()), options.folder / "README.md")
    print(f"wrote {options.folder / 'README.md'}")


if __name__ == "__main__":
    main()
