"""Sends real rows to a model at a fixed rate, and counts what every request came to.

Open loop: each request is sent at its own time, whatever became of the ones before it, so that a slow
server is not spared and the count of lost requests is what users would have lost. Nothing is sent again.

Some requests come over connections that are kept open, as from a service with a connection pool, and the
others over a connection of their own. Each second it prints what has happened so far as one line of JSON,
and a summary at the end, also when SIGTERM ends it early.
"""

import argparse
import asyncio
import collections
import dataclasses
import itertools
import json
import math
import pathlib
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

OK = "ok"
CLIENT_ERROR = "client_error"
SERVER_ERROR = "server_error"
CONNECTION_ERROR = "connection_error"
TIMEOUT = "timeout"
LOST = (SERVER_ERROR, CONNECTION_ERROR, TIMEOUT)
"""Outcomes that leave a user without an answer through no fault of their own."""

CAUSES_KEPT = 20
MOST_UNDERWAY = 500
"""Requests open at once: beyond it they are not sent but counted as timeouts, so that memory stays bounded."""


@dataclasses.dataclass
class Span:
    """How many, and when the first and the last of them came, in seconds since the epoch."""

    count: int = 0
    first: float | None = None
    last: float | None = None
    rows: int = 0
    right: int = 0
    """Rows whose answer was the known label, of `rows`."""

    def add(self, now: float) -> None:
        """Counts one more, at this time."""
        self.count += 1
        self.first = now if self.first is None else self.first
        self.last = now


class Tally:
    """Everything that is counted."""

    def __init__(self) -> None:
        self.started = time.time()
        self.sent = 0
        self.latest_start_seconds = 0.0
        """The most that a request was sent after its time: large when this client itself was starved."""
        self.outcomes: dict[str, Span] = collections.defaultdict(Span)
        self.revisions: dict[str, Span] = collections.defaultdict(Span)
        self.causes: collections.Counter[str] = collections.Counter()
        self.milliseconds: list[float] = []

    def answered(self, outcome: str, seconds: float, cause: str | None = None) -> None:
        """Counts what a request came to, and why."""
        self.outcomes[outcome].add(time.time())
        if outcome in (OK, SERVER_ERROR):
            self.milliseconds.append(1000 * seconds)
        if cause is not None and (cause in self.causes or len(self.causes) < CAUSES_KEPT):
            self.causes[cause] += 1

    def predicted(self, revision: str, labels: Sequence[Any], answers: Sequence[Any]) -> None:
        """Counts an answer for the revision that gave it."""
        span = self.revisions[revision]
        span.add(time.time())
        span.rows += len(labels)
        span.right += sum(label == answer for label, answer in zip(labels, answers, strict=False))

    def told(self, kind: str) -> str:
        """Returns the counts as one line of JSON."""
        return json.dumps(
            {
                "kind": kind,
                "time": time.time(),
                "seconds": round(time.time() - self.started, 3),
                "sent": self.sent,
                "lost": sum(self.outcomes[name].count for name in LOST if name in self.outcomes),
                "outcomes": {name: dataclasses.asdict(span) for name, span in self.outcomes.items()},
                "revisions": {name: dataclasses.asdict(span) for name, span in self.revisions.items()},
                "causes": dict(self.causes),
                "milliseconds": quantiles(self.milliseconds),
                "latest_start_seconds": round(self.latest_start_seconds, 3),
            }
        )


def quantiles(values: list[float]) -> dict[str, float]:
    """Returns the median, the tail and the maximum."""
    if not values:
        return {}
    ordered = sorted(values)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2) for name, share in shares.items()}


@dataclasses.dataclass(frozen=True)
class Batch:
    """One request's body, and the labels of its rows."""

    body: bytes
    labels: list[Any]


def batches(rows: list[list[float]], labels: list[Any], rows_per_request: int) -> Iterator[Batch]:
    """Yields batches of rows without end, each row in its turn."""
    made: dict[int, Batch] = {}
    for start in itertools.cycle(range(0, len(rows), rows_per_request)):
        if start not in made:
            taken = [(start + offset) % len(rows) for offset in range(rows_per_request)]
            tensor = {
                "name": "input",
                "datatype": "FP64",
                "shape": [rows_per_request, len(rows[0])],
                "data": [value for index in taken for value in rows[index]],
            }
            made[start] = Batch(json.dumps({"inputs": [tensor]}).encode(), [labels[index] for index in taken])
        yield made[start]


class Users:
    """Sends requests over the connections that its users have."""

    def __init__(self, options: argparse.Namespace, tally: Tally) -> None:
        self._url = f"{options.url}/v2/models/{options.model}/infer"
        self._timeout = options.timeout_seconds
        self._fresh_share = options.fresh_percent / 100
        self._tally = tally
        self._choice = random.Random(options.seed)
        self._fresh = self._client(kept=0)
        self._kept = [self._client(kept=1) for _ in range(options.users)]
        self._turns = itertools.cycle(self._kept)

    def _client(self, *, kept: int) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=60)
        return httpx.AsyncClient(limits=limits, timeout=self._timeout, trust_env=False)

    async def close(self) -> None:
        """Closes every connection."""
        for one in (self._fresh, *self._kept):
            await one.aclose()

    async def send(self, batch: Batch) -> None:
        """Sends one request and counts what becomes of it."""
        is_fresh = self._choice.random() < self._fresh_share
        client = self._fresh if is_fresh else next(self._turns)
        before = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                response = await client.post(
                    self._url, content=batch.body, headers={"content-type": "application/json"}
                )
        except (TimeoutError, httpx.TimeoutException) as error:
            self._tally.answered(
                TIMEOUT, time.monotonic() - before, f"no answer within {self._timeout:g} s ({type(error).__name__})"
            )
            return
        except httpx.TransportError as error:
            cause = f"{'fresh' if is_fresh else 'kept'} connection: {type(error).__name__}: {error}"
            self._tally.answered(CONNECTION_ERROR, time.monotonic() - before, cause[:200])
            return
        self._count(response, batch, time.monotonic() - before)

    def _count(self, response: httpx.Response, batch: Batch, seconds: float) -> None:
        if response.status_code == httpx.codes.OK:
            answer = response.json()
            self._tally.answered(OK, seconds)
            self._tally.predicted(answer["model_version"], batch.labels, answer["outputs"][0]["data"])
            return
        outcome = SERVER_ERROR if response.is_server_error else CLIENT_ERROR
        self._tally.answered(outcome, seconds, f"{response.status_code}: {shortened(response.text)}")


def shortened(text: str) -> str:
    """Returns an answer's own words without the values that differ from row to row."""
    return text.partition("[")[0].strip()[:120]


async def drive(options: argparse.Namespace) -> None:
    """Sends until the time is over or SIGTERM comes, then waits for the last answers."""
    data = json.loads(options.rows.read_text())
    tally = Tally()
    users = Users(options, tally)
    stopped = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, stopped.set)
    telling = asyncio.create_task(tell(tally))
    underway: set[asyncio.Task[None]] = set()
    started = time.monotonic()
    for number, batch in zip(
        range(int(options.rate * options.seconds)),
        batches(data["rows"], data["labels"], options.rows_per_request),
        strict=False,
    ):
        due = started + number / options.rate
        await wait(stopped, due - time.monotonic())
        if stopped.is_set():
            break
        tally.sent += 1
        tally.latest_start_seconds = max(tally.latest_start_seconds, time.monotonic() - due)
        if len(underway) >= MOST_UNDERWAY:
            tally.answered(TIMEOUT, 0.0, "too many requests without an answer")
            continue
        task = asyncio.create_task(users.send(batch))
        underway.add(task)
        task.add_done_callback(underway.discard)
    if underway:
        await asyncio.wait(underway)
    telling.cancel()
    await users.close()
    print(tally.told("summary"), flush=True)


async def wait(stopped: asyncio.Event, seconds: float) -> None:
    """Waits so long, or until it is time to stop."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    try:
        await asyncio.wait_for(stopped.wait(), seconds)
    except TimeoutError:
        return


async def tell(tally: Tally) -> None:
    """Prints the counts each second."""
    while True:
        await asyncio.sleep(1.0)
        print(tally.told("progress"), flush=True)


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True, help="where the model's Service is, such as http://digits")
    parser.add_argument("--model", required=True, help="name of the ModelDeployment")
    parser.add_argument("--rows", required=True, type=pathlib.Path, help="JSON file with rows and labels")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long at most (%(default)s)")
    parser.add_argument("--users", type=int, default=8, help="connections that are kept open (%(default)s)")
    parser.add_argument(
        "--fresh-percent", type=float, default=50.0, help="share sent over a connection of its own (%(default)s)"
    )
    parser.add_argument("--rows-per-request", type=int, default=1, help="rows in each request (%(default)s)")
    parser.add_argument("--timeout-seconds", type=float, default=5.0, help="until a request is lost (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which requests get a fresh connection (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(drive(options(sys.argv[1:])))
