"""What only a real process on real sockets can show."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.model_server import support

from kedge_server import packing

BODY = orjson.dumps(support.iris_body())


@pytest.fixture
def server(iris_file: Path) -> Iterator[support.Process]:
    with support.process("--model-path", str(iris_file), "--drain-seconds", "0.5") as running:
        yield running


class Load:
    """Clients that ask one request after another until the server is gone.

    A connection that is refused was never accepted, so no request is lost with it;
    anything else that is not a 200 is a lost request.
    """

    def __init__(self, port: int, clients: int, *, keep_alive: bool) -> None:
        self.answered = 0
        self.closed_by_server = 0
        self.lost: list[str] = []
        self._port = port
        self._keep_alive = keep_alive
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()

    def _ask(self) -> None:
        connection: socket.socket | None = None
        request = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
        while True:
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self._port), timeout=20)
            except (ConnectionRefusedError, TimeoutError):
                return
            try:
                connection.sendall(request)
                head, status = _read_answer(connection)
            except (OSError, ValueError) as exc:
                self.lost.append(repr(exc))
                return
            if status != 200:
                self.lost.append(str(status))
            self.answered += 1
            if b"connection: close" in head:
                self.closed_by_server += 1
            if b"connection: close" in head or not self._keep_alive:
                connection.close()
                connection = None


def _read_answer(connection: socket.socket) -> tuple[bytes, int]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += _receive(connection)
    return head.lower(), int(head.split()[1])


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ValueError("the server hung up in the middle")
    return data


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept-alive connections", "a connection a request"])
def test_sigterm_under_load_loses_no_request(server: support.Process, *, keep_alive: bool) -> None:
    load = Load(server.port, 8, keep_alive=keep_alive)
    support.wait_until(lambda: load.answered > 50)
    server.terminate()
    assert server.wait_exit() == 0
    load.join()
    assert load.lost == []
    assert load.closed_by_server > 0


def test_sigterm_makes_it_unready_at_once_and_it_goes_on_serving(server: support.Process) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/v2/health/ready").status_code == 200
        server.terminate()
        support.wait_until(lambda: client.get("/v2/health/ready").status_code == 503)
        response = client.post("/v2/models/m/infer", content=BODY)
        assert (response.status_code, response.headers["connection"]) == (200, "close")
    assert server.wait_exit() == 0


def test_an_idle_connection_is_closed_cleanly_after_the_drain(server: support.Process) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as idle:
        idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: m\r\n\r\n")
        assert _read_answer(idle)[1] == 200
        server.terminate()
        assert idle.recv(100) == b""
    assert server.wait_exit() == 0


def test_a_second_signal_ends_the_drain(iris_file: Path) -> None:
    with support.process("--model-path", str(iris_file), "--drain-seconds", "600") as server:
        server.terminate()
        support.wait_until(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 503)
        server.send_signal(signal.SIGINT)
        assert server.wait_exit() == 0


def test_a_request_that_began_before_the_drain_s_end_is_finished(server: support.Process) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n" % len(BODY))
        server.terminate()
        support.wait_until(lambda: _refuses(server.port))
        slow.sendall(BODY)
        head, status = _read_answer(slow)
        assert status == 200
        assert b"connection: close" in head
    assert server.wait_exit() == 0


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.05).close()
    except (ConnectionRefusedError, TimeoutError):
        return True
    return False


def test_a_connection_ends_with_its_first_answer_past_its_age(iris_file: Path) -> None:
    arguments = ("--model-path", str(iris_file), "--max-connection-age-seconds", "0.3")
    with (
        support.process(*arguments) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        opened = time.monotonic()
        head = b""
        while b"connection: close" not in head:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: m\r\n\r\n")
            head, status = _read_answer(connection)
            assert status == 200
            assert time.monotonic() - opened < 20
        assert time.monotonic() - opened > 0.2
        assert connection.recv(100) == b""


def test_reads_a_request_that_comes_in_pieces_and_two_that_come_at_once(server: support.Process) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        request = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request[:40]:
            connection.sendall(bytes([byte]))
        connection.sendall(request[40:])
        assert _read_answer(connection)[1] == 200
        probe = b"GET /v2/health/live HTTP/1.1\r\nhost: m\r\n\r\n"
        connection.sendall(probe + probe)
        text = b""
        while text.count(b'{"live":true}') < 2:
            text += _receive(connection)


def test_a_large_body_does_not_count_as_the_next_request_s_header(iris_file: Path) -> None:
    body = BODY + b" " * 150_000
    whole = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with (
        support.process("--model-path", str(iris_file)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        connection.sendall(whole + whole[:40])
        assert _read_answer(connection)[1] == 200
        connection.sendall(whole[40:])
        assert _read_answer(connection)[1] == 200


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_wish_for_another_protocol_is_ignored(server: support.Process, protocol: bytes, pieces: int) -> None:
    head = (
        b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\n"
        b"http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\ncontent-length: %d\r\n\r\n"
    ) % (protocol, len(BODY))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for _ in range(2):
            if pieces == 1:
                connection.sendall(head + BODY)
            else:
                connection.sendall(head)
                support.wait_until(lambda: httpx.get(f"{server.url}/v2/health/live").status_code == 200)
                connection.sendall(BODY)
            assert _read_answer(connection)[1] == 200
        connection.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nhost: m\r\n\r\n")
        assert _read_answer(connection)[1] == 400


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: m\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 99999999999\r\n\r\n" + b"x" * 1000, 408),
        (b"GET /v2 HTTP/1.1\r\nhost: m\r\n" + b"x-a: " + b"a" * 200_000, 431),
        (b"GET /v2 HTTP/1.1\r\nhost: m\r\n", 408),
        (b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 50\r\n\r\n{", 408),
    ],
    ids=["not HTTP", "bad length", "promises too much", "endless header", "half a header", "half a body"],
)
def test_a_connection_that_misbehaves_is_answered_and_closed(
    iris_file: Path, request_bytes: bytes, status: int
) -> None:
    arguments = ("--model-path", str(iris_file), "--receive-timeout-seconds", "0.3")
    with (
        support.process(*arguments) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        connection.sendall(request_bytes)
        head, found = _read_answer(connection)
        assert found == status
        assert b"connection: close" in head
        assert httpx.get(f"{server.url}/v2/health/live").status_code == 200


def test_every_answer_names_the_version_that_gave_it(iris_file: Path) -> None:
    with support.process("--model-path", str(iris_file), "--model-version", "4be1f0a2c9") as server:
        with httpx.Client(base_url=server.url) as client:
            answers = [
                client.post("/v2/models/m/infer", content=BODY),
                client.post("/v2/models/m/infer", content=b"{"),
                client.post("/v2/models/other/infer", content=BODY),
                client.get("/v2/health/ready"),
                client.get("/metrics"),
            ]
        assert [answer.status_code for answer in answers] == [200, 400, 404, 200, 200]
        assert {answer.headers["kedge-model-version"] for answer in answers} == {"4be1f0a2c9"}
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert b"\r\nkedge-model-version: 4be1f0a2c9\r\n" in _read_answer(connection)[0]


def test_connections_beyond_the_limit_are_refused_and_the_others_live_on(iris_file: Path) -> None:
    with support.process("--model-path", str(iris_file), "--max-connections", "3") as server:
        support.wait_until(lambda: httpx.get(f"{server.url}/v2/health/live").status_code == 200)
        with httpx.Client(base_url=server.url) as client:
            client.get("/v2")
            held = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(2)]
            refused = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            assert _read_answer(refused)[1] == 503
            assert client.post("/v2/models/m/infer", content=BODY).status_code == 200
            for connection in [*held, refused]:
                connection.close()


def test_a_model_that_cannot_be_served_ends_the_process_with_its_reason(tmp_path: Path, iris_file: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    arguments = ("--model-path", str(iris_file), "--sha256", "0" * 64, "--termination-log", str(log))
    with support.process(*arguments, ready=False) as server:
        assert server.wait_exit() == 1
        assert json.loads(log.read_text())["reason"] == "ModelDigestMismatch"


def test_answers_many_clients_at_once_and_counts_each_once(server: support.Process, iris: object) -> None:
    async def ask_all() -> list[int]:
        limits = httpx.Limits(max_connections=30)
        async with httpx.AsyncClient(base_url=server.url, timeout=20, limits=limits) as client:
            bodies = [orjson.dumps(support.iris_body(start=i)) for i in range(150)]
            answers = await asyncio.gather(*(client.post("/v2/models/m/infer", content=b) for b in bodies))
            return [a.json()["outputs"][0]["data"][0] for a in answers]

    assert asyncio.run(ask_all()) == iris.predict(support.IRIS).tolist()  # type: ignore[attr-defined]
    page = httpx.get(f"{server.url}/metrics", params={"name[]": "kedge_server_requests_total"}).text
    assert support.faults(page) == {"none": 150, "client": 0, "server": 0, "overload": 0}


def test_a_batch_finds_the_memory_of_the_one_before() -> None:
    code = """
import resource
import numpy as np
from kedge_server import serving
serving._keep_freed_memory()
def new_pages_of_a_batch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        arrays = [np.ones((1600, 64)) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([new_pages_of_a_batch() for _ in range(10)][-1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # They are 2,400 pages; glibc by itself would give 1,168 of them back each time.
    assert int(done.stdout) < 10


def test_logs_are_json_and_say_what_is_served(server: support.Process) -> None:
    server.terminate()
    server.wait_exit()
    messages = {entry["message"]: entry for entry in server.logs()}
    assert {"listening", "ready", "stopping", "drained"} <= messages.keys()
    assert messages["ready"]["model"] == "m"


def test_what_python_warns_of_while_a_model_proves_itself_is_json_too(tmp_path: Path) -> None:
    model = make_pipeline(OneHotEncoder(handle_unknown="warn"), LogisticRegression())
    rows = np.array([["Oslo"], ["Rome"], ["Bern"]], dtype=object)
    with pytest.warns(UserWarning, match="unknown categories"):
        packing.package(model.fit(rows[:2], [0, 1]), rows, tmp_path / "warns", name="m")
    with support.process("--model-path", str(tmp_path / "warns")) as server:
        warned = [entry for entry in server.logs() if entry["logger"] == "py.warnings"]
        assert any("unknown categories" in entry["message"] for entry in warned)


def test_a_model_that_warns_of_each_row_leaves_no_trace_in_the_log(tmp_path: Path) -> None:
    model = make_pipeline(OneHotEncoder(handle_unknown="warn"), LogisticRegression())
    path = tmp_path / "warns.skops"
    skops.io.dump(model.fit(np.array([["Oslo"], ["Rome"]], dtype=object), [0, 1]), path)
    body = support.infer_body(support.tensor([["Bern"]], datatype="BYTES"))
    with pytest.warns(UserWarning, match="unknown categories"):
        model.predict(np.array([["Bern"]], dtype=object))
    with support.process("--model-path", str(path)) as server:
        for _ in range(3):
            assert httpx.post(f"{server.url}/v2/models/m/infer", json=body).status_code == 200
        server.terminate()
        server.wait_exit()
        assert {entry["level"] for entry in server.logs()} == {"info"}
