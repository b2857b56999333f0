"""Reads the metrics of pods over HTTP, all at once, bounded in time and size."""

import asyncio
from collections.abc import Sequence

import httpx

from kedge.api import specs
from kedge.desired import names
from kedge.observe import exposition
from kedge.observe.snapshot import PodView, Sample, Unmeasured

TIMEOUT_SECONDS = 3.0
"""For one pod, all phases together. A busy pod answers its metrics page well within it."""
PHASE_TIMEOUT = httpx.Timeout(2.0)
PAGE_LIMIT_BYTES = 1024 * 1024
CONCURRENCY = 64
"""Connections open at once from this operator."""


def client() -> httpx.AsyncClient:
    """Returns the HTTP client for pods: no proxy, no redirects, nothing taken from the environment."""
    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    return httpx.AsyncClient(timeout=PHASE_TIMEOUT, limits=limits, follow_redirects=False, trust_env=False)


async def scrape(
    http: httpx.AsyncClient, pods: Sequence[PodView], indicators: Sequence[specs.Indicator]
) -> tuple[tuple[Sample, ...], tuple[Unmeasured, ...]]:
    """Reads these pods; one that cannot be read is told apart from one that has nothing to say."""
    readings = await asyncio.gather(*(_scrape_one(http, pod, indicators) for pod in pods))
    samples = tuple(reading for reading in readings if isinstance(reading, Sample))
    unmeasured = tuple(reading for reading in readings if isinstance(reading, Unmeasured))
    return samples, unmeasured


async def _scrape_one(
    http: httpx.AsyncClient, pod: PodView, indicators: Sequence[specs.Indicator]
) -> Sample | Unmeasured:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            page = await _page(http, pod)
        started_at, counts = exposition.read(page, indicators)
    except TimeoutError:
        return Unmeasured(pod.uid, pod.revision, f"pod {pod.name} gave no metrics within {TIMEOUT_SECONDS:g} s")
    except (httpx.HTTPError, exposition.ExpositionError) as error:
        return Unmeasured(pod.uid, pod.revision, f"pod {pod.name}: {str(error) or type(error).__name__}")
    return Sample(pod.uid, pod.revision, started_at, counts)


async def _page(http: httpx.AsyncClient, pod: PodView) -> str:
    host = f"[{pod.address}]" if pod.address and ":" in pod.address else pod.address
    url = f"http://{host}:{names.HTTP_PORT}/metrics"
    async with http.stream("GET", url, params=[("name[]", family) for family in exposition.FAMILIES]) as response:
        if response.status_code != httpx.codes.OK:
            raise exposition.ExpositionError(f"the metrics page answered {response.status_code}")
        page = bytearray()
        async for chunk in response.aiter_bytes():
            page += chunk
            if len(page) > PAGE_LIMIT_BYTES:
                raise exposition.ExpositionError(f"the metrics page is larger than {PAGE_LIMIT_BYTES} bytes")
    return page.decode("utf-8", errors="replace")
