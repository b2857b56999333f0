"""The operator's own HTTP port: probes, and its metrics for Prometheus."""

import asyncio
import time
from collections.abc import Callable

import prometheus_client
from aiohttp import web

from kedge.control.metrics import Metrics

LAG_LIMIT_SECONDS = 10.0
"""A loop that did not turn for this long does nothing for anybody."""


class Health:
    """What the probes look at."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._beats: dict[str, tuple[float, float]] = {}
        self.synced = False
        """Whether the cache has seen the whole cluster."""

    def beat(self, what: str, *, within: float) -> None:
        """Tells that something is alive and will be heard of again within so many seconds."""
        self._beats[what] = (self._monotonic(), within)

    def silent(self) -> list[str]:
        """Returns what was not heard of in time."""
        now = self._monotonic()
        return [what for what, (at, within) in self._beats.items() if now - at > within]

    async def watch_the_loop(self) -> None:
        """Beats for as long as the event loop turns."""
        while True:
            self.beat("event loop", within=LAG_LIMIT_SECONDS)
            await asyncio.sleep(1.0)


def application(health: Health, metrics: Metrics) -> web.Application:
    """Returns the application that answers `/healthz`, `/readyz` and `/metrics`."""

    async def alive(_: web.Request) -> web.Response:
        silent = health.silent()
        return web.Response(status=503 if silent else 200, text=f"silent: {', '.join(silent)}" if silent else "ok")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=200 if health.synced else 503, text="ok" if health.synced else "not synced yet")

    async def show_metrics(_: web.Request) -> web.Response:
        page = prometheus_client.generate_latest(metrics.registry)
        return web.Response(body=page, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", show_metrics)
    return app
