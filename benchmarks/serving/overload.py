"""`python -m benchmarks.serving.overload`: five times the capacity, and what stays of the service.

Capacity is what closed-loop clients get from a forest that is predicted row by row.
Then five times as many requests come as can be answered; a probe and a scraper go on
asking. Told: goodput as a share of capacity, refusals, and the probes' p99.
"""

from __future__ import annotations

import asyncio
import collections
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import orjson
import skops.io
from sklearn.ensemble import RandomForestClassifier
from tests.model_server import support

TREES = 300
SECONDS = 5.0
CAPACITY_CONNECTIONS = 8
TIMES_CAPACITY = 5
BODY = orjson.dumps(support.iris_body())


async def ask(client: httpx.AsyncClient) -> int:
    return (await client.post("/v2/models/m/infer", content=BODY)).status_code


async def capacity(url: str) -> float:
    """Returns answered requests a second of clients that wait for each answer."""
    answered = 0
    end = time.monotonic() + SECONDS

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal answered
        while time.monotonic() < end:
            status = await ask(client)
            answered += status == 200

    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        await asyncio.gather(*(one(client) for _ in range(CAPACITY_CONNECTIONS)))
    return answered / SECONDS


async def probe(url: str, path: str, end: float, times: list[float]) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        while time.monotonic() < end:
            started = time.monotonic()
            await client.get(path)
            times.append(time.monotonic() - started)
            await asyncio.sleep(0.02)


async def overload(url: str, rate: float) -> tuple[collections.Counter[int], dict[str, float]]:
    """Sends `rate` requests a second whatever becomes of them; returns statuses and probes' p99."""
    statuses: collections.Counter[int] = collections.Counter()
    end = time.monotonic() + SECONDS
    probes: dict[str, list[float]] = {"/v2/health/ready": [], "/metrics": []}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client, asyncio.TaskGroup() as group:
        for path, times in probes.items():
            group.create_task(probe(url, path, end, times))

        async def one() -> None:
            statuses[await ask(client)] += 1

        sent = 0
        started = time.monotonic()
        while time.monotonic() < end:
            due = int((time.monotonic() - started) * rate)
            for _ in range(due - sent):
                group.create_task(one())
            sent = max(sent, due)
            await asyncio.sleep(0.002)
    return statuses, {path: statistics.quantiles(times, n=100)[98] for path, times in probes.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        skops.io.dump(RandomForestClassifier(TREES, random_state=0).fit(support.IRIS, support.IRIS_LABELS), path)
        arguments = ("--model-path", str(path), "--max-batch-rows", "1", "--max-queue-rows", "20")
        with support.process(*arguments) as server:
            able = asyncio.run(capacity(server.url))
            statuses, probes = asyncio.run(overload(server.url, TIMES_CAPACITY * able))
            goodput = statuses[200] / SECONDS
            print(
                f"capacity {able:.0f}/s; at {TIMES_CAPACITY} times that: goodput {goodput / able:.0%}, {dict(statuses)}"
            )
            for name, seconds in probes.items():
                print(f"{name}: p99 {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()
