"""`python -m benchmarks.serving.overload`: five times the capacity, and what stays of the service.

Capacity is what clients get who wait for each answer, from a forest that is predicted
row by row. Then five times as many requests come; a probe and a scraper go on asking, ten
times a second. The two take turns, since a machine's speed varies within minutes. The server
has one core, the clients the other. Told: goodput as a share of capacity, refusals, and the
p99 of probe and scraper.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import httpx
import orjson
import skops.io
from benchmarks.serving.servers import CLIENT_CORE, SERVER_CORE
from sklearn.ensemble import RandomForestClassifier
from tests.model_server import support

TREES = 300
SECONDS = 6
ROUNDS = 5
CAPACITY_CONNECTIONS = 8
OVERLOAD_CONNECTIONS = 100
TIMES_CAPACITY = 5
PROBE_SECONDS = 0.1
PROBED = ("/v2/health/ready", "/metrics")


def load(url: str, connections: int, delay_milliseconds: int) -> dict[str, int]:
    output = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--timeout", "20s",
         "-s", str(Path(__file__).with_name("overload.lua")), f"{url}/v2/models/m/infer"],
        env={**os.environ, "BODY": orjson.dumps(support.iris_body()).decode(), "DELAY": str(delay_milliseconds)},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    result: dict[str, int] = json.loads(output.strip().splitlines()[-1])
    return result


def probe(url: str, path: str, stopped: threading.Event, times: list[float]) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        while not stopped.is_set():
            started = time.monotonic()
            client.get(path)
            times.append(time.monotonic() - started)
            stopped.wait(PROBE_SECONDS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        skops.io.dump(RandomForestClassifier(TREES, random_state=0).fit(support.IRIS, support.IRIS_LABELS), path)
        arguments = ("--model-path", str(path), "--max-batch-rows", "1", "--max-queue-rows", "20")
        with support.process(*arguments) as server:
            assert server.process.pid is not None
            os.sched_setaffinity(0, {CLIENT_CORE})
            for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {SERVER_CORE})
            times: dict[str, list[float]] = {name: [] for name in PROBED}
            shares = [turn(server.url, times) for _ in range(ROUNDS)]
    print(f"goodput under overload: {statistics.median(shares):.0%} of capacity, the median of {ROUNDS} rounds")
    for name, seconds in times.items():
        print(f"{name}: p99 {statistics.quantiles(seconds, n=100)[98] * 1000:.0f} ms of {len(seconds)}")


def turn(url: str, times: dict[str, list[float]]) -> float:
    """Measures capacity, then the goodput under overload, which it returns as a share."""
    calm = load(url, CAPACITY_CONNECTIONS, 0)
    capacity = calm["answered"] / calm["microseconds"] * 1e6
    stopped = threading.Event()
    threads = [threading.Thread(target=probe, args=(url, name, stopped, seconds)) for name, seconds in times.items()]
    for thread in threads:
        thread.start()
    found = load(url, OVERLOAD_CONNECTIONS, int(1000 * OVERLOAD_CONNECTIONS / (TIMES_CAPACITY * capacity)))
    stopped.set()
    for thread in threads:
        thread.join()
    share = found["answered"] / found["microseconds"] * 1e6 / capacity
    print(f"capacity {capacity:.0f}/s; goodput under overload {share:.0%}; {found}", flush=True)
    return share


if __name__ == "__main__":
    main()
