"""A plain request goes without ASGI; nothing but its speed may tell."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import skops.io
import uvicorn
from tests.model_server import support

from kedge_server import connections, express
from kedge_server.settings import Settings

PATH = "/v2/models/m/infer"
LONG = "x" * 70_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.Process]:
    path: Path = tmp_path_factory.mktemp("model") / "model.skops"
    skops.io.dump(support.iris_model(), path)
    with support.process("--model-path", str(path), "--max-body-bytes", "200000") as running:
        yield running


@pytest.fixture
def connection(server: support.Process) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as found:
        yield found


def request(body: bytes, *headers: str, target: str = PATH, method: str = "POST") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "host: m", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def infer(start: int, rows: int = 1, **fields: Any) -> bytes:
    return orjson.dumps(support.iris_body(rows, start, **fields))


def read(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Reads one answer and nothing after it: status, headers without the date, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1) or pytest.fail("the server hung up")
    lines = data.decode().split("\r\n")[:-2]
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers.pop("date")
    body = b""
    while len(body) < int(headers["content-length"]):
        body += connection.recv(int(headers["content-length"]) - len(body))
    return int(lines[0].split()[1]), headers, body


def binary() -> tuple[bytes, str]:
    rows = np.asarray(support.IRIS[:3], dtype="<f8").tobytes()
    tensor = {"name": "input", "datatype": "FP64", "shape": [3, 4], "parameters": {"binary_data_size": len(rows)}}
    head = orjson.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]})
    return head + rows, f"inference-header-content-length: {len(head)}"


BINARY, BINARY_HEADER = binary()
REQUESTS = {
    "an answer": request(infer(3, id="a", parameters={"method": "predict_proba"})),
    "with a version": request(infer(3), target="/v2/models/m/versions/1/infer"),
    "binary": request(BINARY, BINARY_HEADER),
    "a large answer": request(infer(0, 150, outputs=[{"name": "predict_proba"}, {"name": "decision_function"}])),
    "compressed": request(infer(0, 1, id="a", parameters={"x": LONG}), "accept-encoding: gzip"),
    "not JSON": request(b"{"),
    "another shape": request(orjson.dumps(support.infer_body(support.tensor([[1.0]])))),
    "no body": request(b""),
    "a bad binary length": request(b"{}", "inference-header-content-length: x"),
    "another method": request(infer(3), method="PUT"),
    "too large": request(b"x" * 200_001),
    "closing": request(infer(3), "connection: close"),
}


@pytest.mark.parametrize("plain", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_short_way_answers_as_the_long_one(server: support.Process, plain: bytes) -> None:
    head, _, body = plain.partition(b"\r\n\r\n")
    long = head + b"\r\ncontent-encoding: identity\r\n\r\n" + body
    answers = []
    for content in (plain, long):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as asking:
            asking.sendall(content)
            answers.append(read(asking))

    assert answers[0] == answers[1]


def test_requests_that_come_at_once_are_answered_in_their_order(connection: socket.socket) -> None:
    starts = (0, 60, 120)
    probe = request(b"", target="/v2/health/live", method="GET")
    connection.sendall(request(infer(starts[0])) + probe + b"".join(request(infer(start)) for start in starts[1:]))
    answers = [orjson.loads(read(connection)[2]) for _ in range(4)]

    assert answers[1] == {"live": True}
    assert [answers[i]["outputs"][0]["data"] for i in (0, 2, 3)] == [[0], [1], [2]]


def test_a_fault_leaves_the_connection_to_the_next_request(connection: socket.socket) -> None:
    connection.sendall(request(b"{"))
    assert read(connection)[0] == 400
    connection.sendall(request(infer(0)))
    assert read(connection)[0] == 200


def test_a_body_may_come_in_pieces(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole = request(infer(0, 150))
    for start in range(0, len(whole), 500):
        connection.sendall(whole[start : start + 500])

    assert len(orjson.loads(read(connection)[2])["outputs"][0]["data"]) == 150


def counted(server: support.Process) -> dict[str, int]:
    page = httpx.get(f"{server.url}/metrics", params={"name[]": "kedge_server_requests_total"}).text
    return support.faults(page)


def test_whoever_hangs_up_is_counted_with_the_answer_it_would_have_had(server: support.Process) -> None:
    before = counted(server)["none"]
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as leaving:
            leaving.sendall(request(infer(0)))
            # Some are answered before this is seen, others after.
            leaving.shutdown(socket.SHUT_RDWR)

    support.wait_until(lambda: counted(server)["none"] == before + 20)


@pytest.mark.parametrize("special", [(), ("content-encoding: identity",)], ids=["short way", "long way"])
def test_a_request_that_is_never_whole_counts_as_the_client_s(
    server: support.Process, special: tuple[str, ...]
) -> None:
    before = counted(server)["client"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as leaving:
        leaving.sendall(request(infer(0), *special)[:-5])

    support.wait_until(lambda: counted(server)["client"] == before + 1)


class Transport:
    """Keeps what is written, and whether it was closed."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str) -> None:
        return None


class Later:
    """Takes plain requests and answers when told."""

    targets = frozenset((PATH.encode(),))
    max_body_bytes = 1000

    def __init__(self) -> None:
        self.exchanges: list[express.Exchange] = []

    def take(self, exchange: express.Exchange, body: bytes) -> None:
        self.exchanges.append(exchange)

    def abandon(self, exchange: express.Exchange) -> None:
        raise AssertionError("every request here is whole")


@pytest.fixture
async def direct() -> tuple[Later, Transport, connections.Connection]:
    """Returns a connection with what it stands between."""
    handler, transport = Later(), Transport()
    settings = Settings(model_name="m", model_path=Path("unused"))
    config = uvicorn.Config(lambda: None, loop="asyncio", log_config=None, ws="none", lifespan="off")
    made = connections.protocol_class(settings, handler)(config, uvicorn.server.ServerState(), {})
    made.connection_made(transport)  # type: ignore[arg-type]
    assert isinstance(made, connections.Connection)
    return handler, transport, made


async def test_an_idle_connection_ends_after_its_time_and_a_waiting_one_does_not(
    direct: tuple[Later, Transport, connections.Connection],
) -> None:
    handler, transport, connection = direct
    long_after = connections.IDLE_SECONDS + 1.0
    connection.data_received(request(b"{}"))
    connection.sweep(time.monotonic() + long_after)
    assert not transport.closed
    handler.exchanges[0].send(200, (), b"{}", last=False)
    connection.sweep(time.monotonic())
    assert not transport.closed
    connection.sweep(time.monotonic() + long_after)
    assert transport.closed


async def test_whoever_connects_and_never_asks_is_let_go(
    direct: tuple[Later, Transport, connections.Connection],
) -> None:
    _, transport, connection = direct
    connection.sweep(time.monotonic())
    assert not transport.closed
    connection.data_received(b"\r\n")
    connection.sweep(time.monotonic() + connection.receive_timeout_seconds + 1.0)
    assert transport.closed
    assert transport.written == b""


async def test_the_time_of_a_request_starts_with_its_first_byte_and_not_with_a_blank_line_before(
    direct: tuple[Later, Transport, connections.Connection],
) -> None:
    handler, transport, connection = direct
    connection.data_received(request(b"{}"))
    handler.exchanges[0].send(200, (), b"{}", last=False)
    connection.data_received(b"\r\n")
    connection.sweep(time.monotonic() + connection.receive_timeout_seconds + 1.0)
    assert not transport.closed
    before = time.monotonic()
    connection.data_received(request(b"{}"))
    assert handler.exchanges[1].arrived >= before


async def test_a_request_that_came_whole_is_answered_though_the_next_one_is_late(
    direct: tuple[Later, Transport, connections.Connection],
) -> None:
    handler, transport, connection = direct
    connection.data_received(request(b"{}") + b"POST /v2/mod")
    late = time.monotonic() + connection.receive_timeout_seconds + 1.0
    connection.sweep(late)
    assert transport.written == b""
    handler.exchanges[0].send(200, (), b"{}", last=False)
    connection.sweep(late)
    assert transport.written.count(b"HTTP/1.1") == 2
    assert b"408 Request Timeout" in transport.written


async def test_nothing_is_written_to_a_client_that_has_gone(
    direct: tuple[Later, Transport, connections.Connection],
) -> None:
    handler, transport, connection = direct
    connection.data_received(request(b"{}"))
    connection.connection_lost(None)
    handler.exchanges[0].send(200, (), b"{}", last=False)

    assert transport.written == b""


async def test_a_client_that_does_not_read_is_left_to_the_long_way(
    direct: tuple[Later, Transport, connections.Connection],
) -> None:
    handler, _, connection = direct
    connection.pause_writing()
    started: list[object] = []
    connection._start_asgi_task = lambda *parts: started.append(parts)  # type: ignore[method-assign]
    connection.data_received(request(b"{}"))

    assert handler.exchanges == []
    assert len(started) == 1
