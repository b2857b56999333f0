"""The traffic client counts each request once, under what it came to."""

import argparse
import asyncio
import json
import pathlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from examples.traffic import client

ANSWER = {"model_name": "digits", "model_version": "abc", "outputs": [{"name": "predict", "data": [3]}]}


class Model(BaseHTTPRequestHandler):
    """Answers well, or with what its server was told."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, answer = self.server.answers.pop(0)  # type: ignore[attr-defined]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def options(url: str, tmp_path: pathlib.Path, *more: str) -> argparse.Namespace:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps({"rows": [[1, 2], [3, 4]], "labels": [3, 5]}))
    return client.options([f"--url={url}", "--model=digits", f"--rows={rows}", "--rate=50", *more])


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["kind"] == "summary"
    return told


def test_every_outcome_is_counted(
    server: ThreadingHTTPServer, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [  # type: ignore[attr-defined]
        (200, ANSWER),
        (200, ANSWER),
        (500, {"error": "the model raised ValueError: Found unknown categories [7.0]"}),
        (422, {"error": "too few values"}),
        *[(200, ANSWER)] * 6,
    ]

    asyncio.run(client.drive(options(f"http://127.0.0.1:{server.server_port}", tmp_path, "--seconds=0.2")))

    told = summary(capsys)
    counts = {name: span["count"] for name, span in told["outcomes"].items()}
    assert (told["sent"], told["lost"]) == (10, 1)
    assert counts == {"ok": 8, "server_error": 1, "client_error": 1}
    assert told["revisions"]["abc"]["count"] == 8
    assert 0 < told["revisions"]["abc"]["right"] < told["revisions"]["abc"]["rows"] == 8
    assert sum(told["causes"].values()) == 2


def test_a_server_that_is_not_there_loses_every_request(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as closed:
        port = closed.server_port

    asyncio.run(client.drive(options(f"http://127.0.0.1:{port}", tmp_path, "--seconds=0.1")))

    told = summary(capsys)
    assert (told["sent"], told["lost"]) == (5, 5)
    assert told["outcomes"]["connection_error"]["count"] == 5


def test_rows_are_sent_in_turn_and_come_around() -> None:
    taken = client.batches([[1.0], [2.0], [3.0]], ["a", "b", "c"], rows_per_request=2)

    first, second, third = next(taken), next(taken), next(taken)

    assert (first.labels, second.labels, third.labels) == (["a", "b"], ["c", "a"], ["a", "b"])
    assert json.loads(second.body)["inputs"][0] == {
        "name": "input",
        "datatype": "FP64",
        "shape": [2, 1],
        "data": [3.0, 1.0],
    }


def test_quantiles_are_values_that_were_seen() -> None:
    assert client.quantiles([5.0, 1.0, 3.0]) == {"p50": 3.0, "p90": 5.0, "p99": 5.0, "max": 5.0}
    assert client.quantiles([]) == {}
