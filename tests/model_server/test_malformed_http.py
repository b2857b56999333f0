"""Ten thousand malformed requests to a real server: no 5xx, no hang, no growth, and each counted once."""

from __future__ import annotations

import asyncio
import collections
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.model_server import mutants, support
from tests.model_server.mutants import Mutant, Mutants

FRAMED = 8_500
BROKEN = 1_500
CONNECTIONS = 8
MOST_PIPELINED = 6
# For a broken build only: an answer takes a few milliseconds.
ANSWER_SECONDS = 20.0
# What the first ones make the allocator keep is there before growth is measured; after that it was
# below 1 MiB. A kilobyte that each request left behind would be 10 MiB.
WARM_UP_FRAMED = 1_000
WARM_UP_BROKEN = 400
MAX_GROWTH_BYTES = 5 << 20
# A request that never comes to its end is answered after this.
RECEIVE_SECONDS = 2


@pytest.fixture(scope="module")
def server(iris_file: Path) -> Iterator[support.Process]:
    # Connections are not to end by age while requests are under way on them.
    options = ("--max-connection-age-seconds", "3600", "--receive-timeout-seconds", str(RECEIVE_SECONDS))
    with support.process("--model-path", str(iris_file), *options) as running:
        yield running


def counts(server: support.Process) -> dict[str, int]:
    return support.faults(httpx.get(f"{server.url}/metrics").text)


def resident_bytes(server: support.Process) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Reads one answer and returns its status and head."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(maxsplit=2)[1])
        if status != 100:
            break
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return status, head


async def send_framed(port: int, supply: Mutants, number: int) -> collections.Counter[tuple[bool, int]]:
    """Sends mutants over one connection, several at once, and returns how often each status came."""
    seen: collections.Counter[tuple[bool, int]] = collections.Counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while number > 0:
        batch = [supply.framed() for _ in range(min(number, supply.dice.randint(1, MOST_PIPELINED)))]
        number -= len(batch)
        writer.write(b"".join(mutant.content for mutant in batch))
        for mutant in batch:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    status, head = await answer(reader)
            except (TimeoutError, asyncio.IncompleteReadError) as exc:
                pytest.fail(f"{mutant} of {[other.kind for other in batch]} was not answered: {exc!r}")
            assert status < 500, (mutant, head)
            assert b"connection: close" not in head, mutant
            seen[mutant.counted, status] += 1
    writer.close()
    await writer.wait_closed()
    return seen


async def send_broken(port: int, mutant: Mutant) -> list[int]:
    """Sends one over a connection of its own, hangs up, and returns the statuses that came before the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(mutant.content)
        writer.write_eof()
        async with asyncio.timeout(ANSWER_SECONDS):
            content = await reader.read()
    except TimeoutError:
        pytest.fail(f"{mutant} was neither answered nor hung up on")
    except OSError:
        # It was refused before all of it had been read.
        return []
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"^HTTP/1.1 (\d{3})", content, re.MULTILINE)]


async def send_all_framed(port: int, seed: int, number: int) -> collections.Counter[tuple[bool, int]]:
    share = number // CONNECTIONS
    sent = await asyncio.gather(*(send_framed(port, Mutants(seed + i), share) for i in range(CONNECTIONS)))
    total: collections.Counter[tuple[bool, int]] = collections.Counter()
    for seen in sent:
        total.update(seen)
    return total


async def send_all_broken(port: int, seed: int, number: int) -> list[int]:
    supply, statuses = Mutants(seed), []
    for _ in range(number // CONNECTIONS):
        few = [supply.broken() for _ in range(CONNECTIONS)]
        for mutant, found in zip(few, await asyncio.gather(*(send_broken(port, m) for m in few)), strict=True):
            assert all(status < 500 for status in found), mutant
            statuses += found
    return statuses


def test_ten_thousand_malformed_requests_are_the_client_s_faults_and_leave_nothing_behind(
    server: support.Process,
) -> None:
    asyncio.run(send_all_framed(server.port, 1000, WARM_UP_FRAMED))
    asyncio.run(send_all_broken(server.port, 1, WARM_UP_BROKEN))
    before, resident = counts(server), resident_bytes(server)

    seen = asyncio.run(send_all_framed(server.port, 20261125, FRAMED))
    after = counts(server)
    counted = {status: number for (is_counted, status), number in seen.items() if is_counted}
    assert after["client"] - before["client"] == sum(number for status, number in counted.items() if status != 200)
    assert after["none"] - before["none"] == counted[200]
    # Most mutants are really wrong, and in more than one way.
    assert counted[200] < sum(counted.values()) / 4
    assert {400, 404, 405, 413, 415} <= counted.keys()

    statuses = asyncio.run(send_all_broken(server.port, 2, BROKEN))
    assert {400, 431} <= set(statuses)
    last = counts(server)
    assert (last["server"], last["overload"]) == (0, 0)
    assert last["client"] - after["client"] <= BROKEN

    assert resident_bytes(server) - resident < MAX_GROWTH_BYTES
    assert server.process.is_alive()
    good = httpx.post(f"{server.url}{mutants.INFER}", json=support.iris_body())
    assert good.status_code == 200
