"""The life of a server process: listen, load, warm up, serve, drain, end.

It listens before it loads, so that a liveness probe has an answer while a large model
is being read; readiness follows when the model has proved itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import logging
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import numpy as np
import uvicorn
import uvloop

from kedge_server import connections, failures, loading, metrics, predicting, protocol, rest, sockets
from kedge_server.batching import Batcher
from kedge_server.settings import Settings
from kedge_server.signature import Kind, Layout, OutputTensor, Signature, observed

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.25
# How long handshakes that began before new connections were refused may take.
_HANDSHAKE_SECONDS = 0.1
# A connection accepted at the very end gets this long to send the request it came for.
_LAST_REQUEST_SECONDS = 1.0
_POLL_SECONDS = 0.02


class _Server(uvicorn.Server):
    """uvicorn without its own idea of signals: here a SIGTERM starts a drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


def run(settings: Settings) -> int:
    """Serves until a signal ends it; returns the process's exit code.

    Raises:
        StartFailure: The package cannot be served.
        OSError: The port cannot be had.
    """
    listener = sockets.bind(settings.host, settings.port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Life(settings, listener).live())
    return 0


class _Life:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics = metrics.Metrics(settings.model_name, settings.latency_thresholds_ms)
        self._app = rest.App(settings, self._metrics)
        self._server = _Server(
            uvicorn.Config(
                self._app,
                http=connections.protocol_class(settings),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=connections.IDLE_SECONDS,
            )
        )
        self._batcher: Batcher | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        ticking = asyncio.create_task(rest.tick(_TICK_SECONDS, self._sweep))
        _log.info(
            "listening",
            extra={"port": self._listener.getsockname()[1], "model": self._settings.model_name},
        )
        try:
            if await self._load():
                await _first(serving, self._stopping.wait())
                await self._drain()
        finally:
            ticking.cancel()
            await self._end(serving)

    async def _load(self) -> bool:
        """Loads and proves the model; False when a signal came first.

        The thread is a daemon's: a signal need not wait for a load that nobody wants.
        """
        started = time.monotonic()
        loaded: asyncio.Future[tuple[loading.LoadedModel, predicting.Predictor]]
        loaded = asyncio.wrap_future(_in_daemon_thread(_load_and_warm_up, self._settings))
        await _first(loaded, self._stopping.wait())
        if not loaded.done():
            _log.info("stopped while the model was being loaded")
            return False
        model, predictor = loaded.result()
        limits = self._settings.limits
        self._batcher = batcher = Batcher(
            predictor.run,
            max_batch_rows=limits.max_batch_rows,
            max_queue_rows=limits.max_queue_rows,
            timeout_seconds=limits.request_timeout_seconds,
        )
        batcher.on_batch = self._metrics.predicted
        self._metrics.queue_rows = lambda: batcher.queued_rows
        self._metrics.loaded(self._settings.model_version, model.digest)
        self._app.serve(model, batcher)
        _log.info(
            "ready",
            extra={
                "model": self._settings.model_name,
                "version": self._settings.model_version,
                "digest": model.digest,
                "seconds": round(time.monotonic() - started, 3),
            },
        )
        return True

    def _stop(self, name: str) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        _log.info("stopping", extra={"signal": name, "drain_seconds": self._settings.drain_seconds})
        self._app.draining = True
        self._stopping.set()

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in self._connections():
            connection.sweep(now)
        if self._batcher is not None:
            self._batcher.expire()

    def _connections(self) -> list[connections.Connection]:
        return [c for c in self._server.server_state.connections if isinstance(c, connections.Connection)]

    async def _drain(self) -> None:
        """Serves on while the news spreads, then finishes what it holds and nothing more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._hurry.wait()
        if sockets.refuse_new_connections(self._listener):
            await asyncio.sleep(_HANDSHAKE_SECONDS)
        for server in self._server.servers:
            server.close()
        closed_at = time.monotonic()
        limits = self._settings.limits
        deadline = closed_at + limits.request_timeout_seconds + limits.receive_timeout_seconds
        while (left := self._connections()) and time.monotonic() < deadline:
            for connection in left:
                # One that never asked anything probably came for a request.
                if connection.requests or time.monotonic() - closed_at > _LAST_REQUEST_SECONDS:
                    connection.close_idle()
            await asyncio.sleep(_POLL_SECONDS)
        _log.info("drained", extra={"connections_left": len(self._connections())})

    async def _end(self, serving: asyncio.Task[None]) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        await serving
        if self._batcher is not None:
            self._batcher.close()


def _load_and_warm_up(settings: Settings) -> tuple[loading.LoadedModel, predicting.Predictor]:
    model = loading.load(settings.model_path, settings.sha256, settings.trusted_types)
    predictor = predicting.Predictor(model.estimator, model.signature)
    described = dataclasses.replace(model.signature, outputs=warm_up(predictor, model.signature))
    return dataclasses.replace(model, signature=described), predictor


def warm_up(predictor: predicting.Predictor, signature: Signature) -> tuple[OutputTensor, ...]:
    """Predicts one made-up row, when one can be made of values that the model has learnt.

    The first prediction imports, allocates and starts more than any later one, which
    should cost no user's request its time. A ValueError says that the row does not
    suit the model (a logarithm has no zero), which does not make it a bad model; any
    other error is one that users would meet too. Returns the outputs, as
    they turned out where they could be seen.

    Raises:
        StartFailure: WarmUpFailed.
    """
    rows = _made_up_rows(signature)
    if rows is None:
        return signature.outputs
    known = {output.name: output for output in signature.outputs}
    default = signature.methods[0]
    for method in signature.methods:
        try:
            outputs = predictor.try_out(protocol.InferRequest(None, rows, (method,)))
        except Exception as exc:
            if isinstance(exc, ValueError) or method != default:
                _log.warning(
                    "the made-up warm-up row does not suit the model",
                    extra={"method": method, "error": f"{type(exc).__name__}: {exc}"[:300]},
                )
                continue
            raise failures.StartFailure(
                failures.WARM_UP_FAILED,
                f"The model loads but cannot {default}: {type(exc).__name__}: {exc}; check that it does with this"
                " server's library versions.",
            ) from exc
        known.pop(method)
        known.update((name, observed(name, array)) for name, array in outputs)
    return tuple(known.values())


def _made_up_rows(signature: Signature) -> protocol.Rows | None:
    if signature.layout is Layout.TEXT:
        return protocol.Rows(1, matrix=np.array([""], dtype=object))
    if signature.width is None or any(column.example is None for column in signature.columns):
        return None
    values = [
        np.array([column.example], dtype=object if column.kind is Kind.STRING else np.float64)
        for column in signature.columns
    ]
    if signature.layout is Layout.FRAME:
        return protocol.Rows(1, columns=tuple(values))
    return protocol.Rows(1, matrix=np.column_stack(values))


async def _first(future: asyncio.Future[Any], event: Coroutine[Any, Any, Any]) -> None:
    """Waits for whichever comes first, and lets the future go on."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait([future, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _in_daemon_thread(function: Any, *args: Any) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def call() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as exc:  # noqa: BLE001 - whoever waits for the future gets it
            future.set_exception(exc)

    threading.Thread(target=call, name="load", daemon=True).start()
    return future
