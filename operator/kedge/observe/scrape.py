"""Reads the metrics of pods over HTTP, all at once, bounded in time and size."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence

import httpx

from kedge.api import specs
from kedge.desired import names
from kedge.observe import distributions, exposition
from kedge.observe.snapshot import Distributions, Histogram, PodView, Sample, Unmeasured

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


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What to read from each pod."""

    indicators: Sequence[specs.Indicator]
    """What to count."""
    distributions: bool = False
    """Whether to read the histograms too."""

    @property
    def families(self) -> tuple[str, ...]:
        """The metric families to ask for."""
        counted = exposition.families(self.indicators)
        return (*counted, *distributions.FAMILIES) if self.distributions else counted


@dataclasses.dataclass(frozen=True, slots=True)
class Readings:
    """What was read; a pod that could not be read is told apart from one that has nothing to say."""

    samples: tuple[Sample, ...]
    unmeasured: tuple[Unmeasured, ...]
    distributions: Mapping[str, Distributions] | None
    """Histograms by revision; None when they were not wanted."""


async def scrape(http: httpx.AsyncClient, pods: Sequence[PodView], wanted: Wanted) -> Readings:
    """Reads these pods."""
    answers = await asyncio.gather(*(_scrape_one(http, pod, wanted) for pod in pods))
    readings = [answer for answer in answers if not isinstance(answer, Unmeasured)]
    return Readings(
        samples=tuple(sample for sample, _ in readings),
        unmeasured=tuple(answer for answer in answers if isinstance(answer, Unmeasured)),
        distributions=distributions.total(readings) if wanted.distributions else None,
    )


async def _scrape_one(
    http: httpx.AsyncClient, pod: PodView, wanted: Wanted
) -> tuple[Sample, Mapping[str, Histogram]] | Unmeasured:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            page = await _page(http, pod, wanted.families)
        started_at, counts = exposition.read(page, wanted.indicators)
        histograms = distributions.read(page) if wanted.distributions else {}
    except TimeoutError:
        return Unmeasured(pod.uid, pod.revision, f"pod {pod.name} gave no metrics within {TIMEOUT_SECONDS:g} s")
    except (httpx.HTTPError, exposition.ExpositionError) as error:
        return Unmeasured(pod.uid, pod.revision, f"pod {pod.name}: {str(error) or type(error).__name__}")
    return Sample(pod.uid, pod.revision, started_at, counts), histograms


async def _page(http: httpx.AsyncClient, pod: PodView, families: Sequence[str]) -> str:
    host = f"[{pod.address}]" if pod.address and ":" in pod.address else pod.address
    url = f"http://{host}:{names.HTTP_PORT}/metrics"
    async with http.stream("GET", url, params=[("name[]", family) for family in families]) as response:
        if response.status_code != httpx.codes.OK:
            raise exposition.ExpositionError(f"the metrics page answered {response.status_code}")
        page = bytearray()
        async for chunk in response.aiter_bytes():
            page += chunk
            if len(page) > PAGE_LIMIT_BYTES:
                raise exposition.ExpositionError(f"the metrics page is larger than {PAGE_LIMIT_BYTES} bytes")
    return page.decode("utf-8", errors="replace")
