"""Models, requests and servers that the model server's tests share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kedge_server import batching, cli, dataplane, loading, metrics, predicting, quality, rest, signature, spot_checks
from kedge_server.settings import Limits, Settings

DIGITS, DIGIT_LABELS = load_digits(return_X_y=True)
IRIS, IRIS_LABELS = load_iris(return_X_y=True)


def iris_model() -> Any:
    """Four numbers in, a whole number out."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(IRIS, IRIS_LABELS)


def churn_frame() -> pd.DataFrame:
    """A number and a string."""
    return pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "city": ["Oslo", "Rome", "Oslo", "Rome"]})


def churn_model() -> Any:
    """Trained on a DataFrame with a number and a string; knows the cities Oslo and Rome only."""
    frame = churn_frame()
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    return make_pipeline(columns, LogisticRegression()).fit(frame, ["stay", "leave", "stay", "leave"])


def tensor(data: Any, *, name: str = "input", datatype: str = "FP64", shape: list[int] | None = None) -> dict[str, Any]:
    if shape is None:
        shape = list(np.shape(data))
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def infer_body(*inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **fields}


def iris_body(rows: int = 1, start: int = 0, **fields: Any) -> dict[str, Any]:
    return infer_body(tensor(IRIS[start : start + rows].tolist()), **fields)


def loaded(estimator: Any) -> loading.LoadedModel:
    return loading.LoadedModel(estimator, signature.describe(estimator), "0" * 64)


class Served:
    """An application with its parts, and a client that calls it without a network."""

    def __init__(self, plane: dataplane.Dataplane, batcher: batching.Batcher) -> None:
        self.plane = plane
        self.batcher = batcher
        self.metrics = plane.metrics
        transport = httpx.ASGITransport(rest.App(plane))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://model")

    async def infer(self, body: Any, path: str = "/v2/models/m/infer") -> httpx.Response:
        return await self.client.post(path, json=body)

    def counted(self) -> dict[str, int]:
        """Requests by fault, as the metrics page shows them."""
        return faults(self.metrics.render(["kedge_server_requests_total"]).decode())


def faults(page: str) -> dict[str, int]:
    return {
        line.split('fault="')[1].split('"')[0]: int(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith("kedge_server_requests_total{")
    }


@contextlib.asynccontextmanager
async def served(
    estimator: Any,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    run: Callable[[batching.Run], batching.Run] = lambda run: run,
    compiled: spot_checks.Compiled | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serves `estimator` as model `m`, version `7`, inside this event loop."""
    settings = Settings(model_name="m", model_path=Path("unused"), model_version="7", limits=limits, **options)
    registry = metrics.Metrics("m", (100.0,))
    plane = dataplane.Dataplane(settings, registry)
    model = estimator if isinstance(estimator, loading.LoadedModel) else loaded(estimator)
    predictor = predicting.Predictor(model.estimator, model.signature)
    if compiled is not None:
        predictor.use(compiled)
    registry.compiled = predictor.compiled
    around = run(predictor.run)
    if model.package is not None:
        registry.quality = quality.Quality(model.package.profile, model.signature)
        predictor.observer = registry.quality.remember
    batcher = batching.Batcher(
        around,
        max_batch_rows=limits.max_batch_rows,
        max_queue_rows=limits.max_queue_rows,
        max_queue_bytes=limits.max_queue_bytes,
        timeout_seconds=limits.request_timeout_seconds,
    )
    registry.queue_rows = lambda: batcher.queued_rows
    batcher.on_batch = registry.predicted
    plane.serve(model, batcher)
    result = Served(plane, batcher)
    try:
        yield result
    finally:
        await result.client.aclose()
        batcher.close()


# Children are forked from a process that has done the imports, which take longer than
# all that a test wants to see.
_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(["kedge_server.serving", __name__])


def _run(arguments: list[str], stderr: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with Path(stderr).open("wb") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - it is the process's own
    sys.exit(cli.main(arguments))


def in_fresh_process(function: Callable[[], Any]) -> Any:
    """Returns what `function` returns where nothing but the server has been imported."""
    answer = _FORK_SERVER.SimpleQueue()
    process = _FORK_SERVER.Process(target=_put, args=(function, answer))
    process.start()
    process.join()
    return answer.get()


def _put(function: Callable[[], Any], answer: Any) -> None:
    answer.put(function())


class Process:
    """A server in a process of its own, with real sockets and signals."""

    def __init__(self, stderr: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._stderr = stderr
        options = ["serve", "--host", "127.0.0.1", "--port", str(self.port), "--model-name", "m", *arguments]
        given = (options, str(stderr), environment or {})
        self.process = _FORK_SERVER.Process(target=_run, args=given, daemon=True)
        self.process.start()

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.is_alive(), self._stderr.read_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/v2/health/ready").status_code == 200
            return False

        wait_until(ready)

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def wait_exit(self) -> int | None:
        self.process.join(timeout=30)
        return self.process.exitcode

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stderr.read_text().splitlines()]


@contextlib.contextmanager
def process(*arguments: str, ready: bool = True, environment: dict[str, str] | None = None) -> Iterator[Process]:
    with tempfile.TemporaryDirectory() as folder:
        server = Process(Path(folder) / "stderr", *arguments, environment=environment)
        try:
            if ready:
                server.wait_ready()
            yield server
        finally:
            server.process.kill()
            server.process.join()


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
    """Waits for a condition; its deadline is for a broken build only."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


async def wait_for(condition: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110 - there is nothing to subscribe to
            await asyncio.sleep(0.005)
