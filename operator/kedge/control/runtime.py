"""Starts and stops the parts of the operator, in their order."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import kopf
from aiohttp import web

from kedge.control import probes, watches
from kedge.control.cache import Cache, Key
from kedge.control.leadership import Leadership
from kedge.control.metrics import Metrics
from kedge.control.probes import Health
from kedge.control.queue import KeyedQueue
from kedge.control.reconcile import Reconciler
from kedge.control.settings import Settings
from kedge.desired import names
from kedge.kubernetes_api import MODEL_DEPLOYMENTS, ApiError, KubernetesApi
from kedge.observe import scrape

logger = logging.getLogger(__name__)

RESYNC_SECONDS = 300.0
"""Between two full lists, which repair what a watch may have lost."""
FIRST_SYNC_RETRY_SECONDS = 2.0


class Gate:
    """Lets news through to the queue once this instance may act on them."""

    def __init__(self, queue: KeyedQueue[Key]) -> None:
        self._queue = queue
        self._is_open = False

    def open(self, keys: set[Key]) -> None:
        """Lets news through from now on, and wakes all these keys."""
        self._is_open = True
        for key in keys:
            self._queue.add(key)

    def wake(self, key: Key) -> None:
        """Wakes the key if the gate is open."""
        if self._is_open:
            self._queue.add(key)


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What the parts of one running operator share."""

    api: KubernetesApi
    settings: Settings
    cache: Cache = dataclasses.field(default_factory=Cache)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    health: Health = dataclasses.field(default_factory=Health)


async def run(settings: Settings) -> None:
    """Runs the operator until it is told to stop by a signal, which Kopf listens for.

    Raises:
        LeadershipLostError: Another instance may act now; the process must end.
    """
    api = await KubernetesApi.connect()
    parts = Parts(api, settings)
    try:
        async with _serving(probes.application(parts.health, parts.metrics), settings.port):
            await _operate(parts)
    finally:
        await api.close()


async def _operate(parts: Parts) -> None:
    """Watches, and acts while this instance is the leader; the end of either is the end.

    Kopf looks for the resources to watch only once, when it starts: the first full list waits for the CRD.
    """
    await _fill(parts)
    async with scrape.client() as http:
        reconciler = Reconciler(parts.api, parts.cache, http, parts.settings, parts.metrics)
        queue = KeyedQueue[Key](reconciler.reconcile, failed=lambda _: parts.metrics.reconcile_errors.inc())
        gate = Gate(queue)
        running = {
            asyncio.create_task(_watch(parts, gate), name="watches"),
            asyncio.create_task(_lead(parts, gate, queue), name="leader"),
            asyncio.create_task(parts.health.watch_the_loop(), name="loop"),
        }
        ended, others = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in ended:
            task.result()


async def _lead(parts: Parts, gate: Gate, queue: KeyedQueue[Key]) -> None:
    leadership = Leadership(parts.api, parts.settings.namespace, parts.settings.identity)
    await leadership.acquire()
    parts.metrics.leader.set(1)
    gate.open(parts.cache.keys())
    repairing = asyncio.create_task(_repair_from_time_to_time(parts, gate))
    try:
        await leadership.keep()
    finally:
        parts.metrics.leader.set(0)
        repairing.cancel()
        await queue.close()
        with contextlib.suppress(ApiError):
            await leadership.release()


async def _watch(parts: Parts, gate: Gate) -> None:
    namespaces = parts.settings.watch_namespaces
    await kopf.operator(
        registry=watches.registry(parts.cache, gate.wake),
        settings=watches.settings(),
        standalone=True,
        # Kopf would ask the system for the user's name, and a container's user may have none. Its type for
        # this is a string by another name, which it does not export.
        identity=cast("Any", parts.settings.identity),
        clusterwide=not namespaces,
        namespaces=namespaces,
    )


async def _fill(parts: Parts) -> None:
    """Lists everything once before anything is decided."""
    while not parts.health.synced:
        try:
            await _repair(parts)
            parts.health.synced = True
        except ApiError as error:
            logger.warning("cannot list the cluster's objects yet: %s", error)
            await asyncio.sleep(FIRST_SYNC_RETRY_SECONDS)


async def _repair_from_time_to_time(parts: Parts, gate: Gate) -> None:
    while True:
        parts.health.beat("full list", within=3 * RESYNC_SECONDS)
        parts.metrics.model_deployments.set(len(parts.cache.keys()))
        await asyncio.sleep(RESYNC_SECONDS)
        try:
            await _repair(parts)
        except ApiError as error:
            logger.warning("cannot list the cluster's objects: %s", error)
            continue
        parts.metrics.repairs.inc()
        for key in sorted(parts.cache.keys()):
            gate.wake(key)


async def _repair(parts: Parts) -> None:
    """Compares the cache with full lists of everything that is watched."""
    for namespace in parts.settings.watch_namespaces or (None,):
        for resource in (MODEL_DEPLOYMENTS, *watches.CHILDREN):
            labels = "" if resource is MODEL_DEPLOYMENTS else names.MODEL_DEPLOYMENT_LABEL
            listing = await parts.api.list(resource, namespace, labels=labels)
            parts.cache.replace_all(resource, listing.items, namespace=namespace, older_than=listing.resource_version)


@contextlib.asynccontextmanager
async def _serving(app: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    try:
        yield
    finally:
        await runner.cleanup()
