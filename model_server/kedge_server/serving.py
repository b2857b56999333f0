"""The life of a server process: listen, load, warm up, serve, drain, end.

It listens before it loads, so that a liveness probe has an answer while a large model
is being read; readiness follows when the model has proved itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn
import uvloop

from kedge_server import (
    connections,
    dataplane,
    loading,
    metrics,
    packages,
    predicting,
    protocol,
    proving,
    quality,
    rest,
    sockets,
    tracing,
)
from kedge_server.batching import Batcher
from kedge_server.settings import Settings

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.25
# A connection accepted at the very end gets this long to send the request it came for.
_LAST_REQUEST_SECONDS = 1.0
_POLL_SECONDS = 0.02
# The garbage collector looks for cycles among this many new objects; a request has about a dozen.
_NEW_OBJECTS = 10_000
# What malloc may keep of freed memory, and from what size an array has pages of its own.
_KEPT_BYTES = 16 << 20
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# For the collector to take the last spans.
_LAST_SPANS_SECONDS = 5.0


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
    _keep_freed_memory()
    listener = sockets.bind(settings.host, settings.port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Life(settings, listener).live())
    return 0


class _Life:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics = metrics.Metrics(settings.model_name, settings.latency_thresholds_ms)
        self._spans = spans = tracing.configure(settings, os.environ)
        make_plane = dataplane.Dataplane if spans is None else spans.dataplane
        self._plane = make_plane(settings, self._metrics)
        app = rest.App(self._plane)
        self._server = _Server(
            uvicorn.Config(
                app if spans is None else spans.around_app(app),
                # What is traced passes through the application, which the short way goes round.
                http=connections.protocol_class(settings, app if spans is None else None),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=[(protocol.VERSION_HEADER, settings.model_version)],
                timeout_keep_alive=connections.IDLE_SECONDS,
            )
        )
        self._batcher: Batcher | None = None
        self._grpc: Any = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        ticking = asyncio.create_task(rest.tick(_TICK_SECONDS, self._sweep))
        ports = {"port": self._listener.getsockname()[1], "grpc_port": await self._start_grpc()}
        _log.info("listening", extra={**ports, "model": self._settings.model_name})
        try:
            if await self._load():
                await _first(serving, self._stopping.wait())
                await self._drain()
        finally:
            ticking.cancel()
            await self._end(serving)

    async def _start_grpc(self) -> int | None:
        if self._settings.grpc_port is None:
            return None
        from kedge_server import grpc_service  # noqa: PLC0415 - most servers go without it

        interceptors = [] if self._spans is None else [self._spans.interceptor()]
        self._grpc = server = grpc_service.Server(self._plane, self._settings, interceptors)
        await server.start()
        return server.port

    async def _load(self) -> bool:
        """Loads and proves the model; False when a signal came first.

        The thread is a daemon's: a signal need not wait for a load that nobody wants.
        """
        started = time.monotonic()
        loaded: asyncio.Future[tuple[loading.LoadedModel, predicting.Predictor]]
        loaded = asyncio.wrap_future(_in_daemon_thread(proving.load_and_prove, self._settings))
        await _first(loaded, self._stopping.wait())
        if not loaded.done():
            _log.info("stopped while the model was being loaded")
            return False
        model, predictor = loaded.result()
        limits = self._settings.limits
        profile_digest = ""
        self._metrics.compiled = predictor.compiled
        if model.package is not None:
            profile_digest = model.package.manifest.files[packages.PROFILE]
            if self._settings.count_data:
                counting = quality.Quality(model.package.profile, model.signature)
                self._metrics.quality = counting
                predictor.observer = counting.remember
        run = predictor.run if self._spans is None else self._spans.around_run(predictor.run)
        self._batcher = batcher = Batcher(
            run,
            max_batch_rows=limits.max_batch_rows,
            max_queue_rows=limits.max_queue_rows,
            max_queue_bytes=limits.max_queue_bytes,
            timeout_seconds=limits.request_timeout_seconds,
        )
        batcher.on_batch = self._metrics.predicted
        self._metrics.queue_rows = lambda: batcher.queued_rows
        self._metrics.loaded(self._settings.model_version, model.digest, profile_digest)
        _leave_to_stay()
        _silence_warnings()
        self._plane.serve(model, batcher)
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
        self._plane.draining = True
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
            await asyncio.sleep(sockets.HANDSHAKE_SECONDS)
        for server in self._server.servers:
            server.close()
        closed_at = time.monotonic()
        limits = self._settings.limits
        drained = asyncio.ensure_future(self._grpc.drain()) if self._grpc is not None else None
        deadline = closed_at + limits.request_timeout_seconds + limits.receive_timeout_seconds
        while (left := self._connections()) and time.monotonic() < deadline:
            for connection in left:
                # One that never asked anything probably came for a request.
                if connection.requests or time.monotonic() - closed_at > _LAST_REQUEST_SECONDS:
                    connection.close_idle()
            await asyncio.sleep(_POLL_SECONDS)
        if drained is not None:
            await drained
        _log.info("drained", extra={"connections_left": len(self._connections())})

    async def _end(self, serving: asyncio.Task[None]) -> None:
        if self._grpc is not None:
            await self._grpc.stop()
        self._server.should_exit = True
        self._server.force_exit = True
        await serving
        if self._batcher is not None:
            self._batcher.close()
        if self._spans is not None:
            # In a thread, since a collector that does not answer would hold up the end.
            closed = asyncio.wrap_future(_in_daemon_thread(self._spans.close))
            await asyncio.wait([closed], timeout=_LAST_SPANS_SECONDS)


def _keep_freed_memory() -> None:
    """Lets malloc keep what a batch has freed for the next one.

    By default glibc gives it back to the system as soon as some hundred kilobytes are free
    (mallopt(3)), and each batch of a thousand rows met hundreds of pages anew: a quarter of its
    time. Another C library is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def _leave_to_stay() -> None:
    """Takes what has been imported and loaded out of the garbage collector's sight.

    It stays for good, and looking at it again and again stopped everything for 50 ms
    about once a second under load. What comes and goes with requests is freed without
    the collector, which need not look each time that some dozens of them are in flight.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])


def _silence_warnings() -> None:
    """Replaces all filters of Python warnings by one that ignores them.

    scikit-learn sets every filter again for each tree of a forest, in each prediction: the
    dozen that numpy, scipy and Python bring were 1.7 of the 4.1 ms that one row took.
    Whoever can act upon a warning has seen it while the model was being proved.
    """
    warnings.resetwarnings()
    warnings.simplefilter("ignore")


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
