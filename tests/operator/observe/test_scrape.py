import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from kedge.api import specs
from kedge.observe import scrape
from kedge.observe.snapshot import EventCounts, PodView

AVAILABILITY = specs.Indicator(type=specs.IndicatorType.AVAILABILITY)
PAGE = 'kedge_server_requests_total{fault="none"} 5\nkedge_server_requests_total{fault="server"} 1\n'


def pod(name: str, address: str = "10.0.0.1") -> PodView:
    return PodView(name, name, "r", address, ready=True, terminating=False, created_at=0.0)


async def scraped(handler: httpx.MockTransport, *pods: PodView) -> tuple[list[str], list[str]]:
    async with httpx.AsyncClient(transport=handler) as http:
        read = await scrape.scrape(http, pods, scrape.Wanted([AVAILABILITY]))
    return [sample.pod_uid for sample in read.samples], [one.message for one in read.unmeasured]


async def test_a_pod_is_asked_for_the_wanted_families_only() -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, text=PAGE)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        read = await scrape.scrape(http, [pod("a", "fd00::1")], scrape.Wanted([AVAILABILITY]))
    assert read.samples[0].counts == {"availability": EventCounts(1, 6)}
    assert str(asked[0].copy_with(query=None)) == "http://[fd00::1]:8080/metrics"
    assert "kedge_server_requests_total" in asked[0].params.get_list("name[]")


async def test_one_silent_pod_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "TIMEOUT_SECONDS", 0.05)

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "10.0.0.2":
            await asyncio.Event().wait()
        return httpx.Response(200, text=PAGE)

    read, unread = await scraped(httpx.MockTransport(answer), pod("a"), pod("b", "10.0.0.2"))
    assert read == ["a"]
    assert unread == ["pod b gave no metrics within 0.05 s"]


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 65536


async def broken() -> AsyncIterator[bytes]:
    yield b"kedge_server_requests_total"
    raise httpx.ReadError("connection reset")


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        (lambda: httpx.Response(200, content=endless()), "larger than"),
        (lambda: httpx.Response(200, content=broken()), "connection reset"),
        (lambda: httpx.Response(503, text="busy"), "answered 503"),
        (lambda: httpx.Response(302, headers={"location": "http://elsewhere/"}), "answered 302"),
        (lambda: httpx.Response(200, text="<html>"), "has no kedge_server_requests_total"),
        (lambda: httpx.Response(200, content=b"\xff\xfe"), "has no kedge_server_requests_total"),
    ],
)
async def test_a_page_that_cannot_be_read_is_told(response: Callable[[], httpx.Response], complaint: str) -> None:
    read, unread = await scraped(httpx.MockTransport(lambda _: response()), pod("a"))
    assert not read
    assert complaint in unread[0]


async def test_a_pod_that_refuses_connections_is_told() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert (await scraped(httpx.MockTransport(refuse), pod("a")))[1] == ["pod a: refused"]
