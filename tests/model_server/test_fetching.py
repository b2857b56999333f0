from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import httpx
import pytest

from kedge_server import failures, fetching

CONTENT = b"model" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
URI = "https://user:secret@models.example/churn.skops?signature=secret"


def fetch(
    out: Path,
    answer: Callable[[httpx.Request], httpx.Response],
    sha256: str | None = DIGEST,
    timeout_seconds: float = 60.0,
    max_bytes: int = 1 << 20,
) -> str:
    return fetching.fetch(
        URI,
        out,
        sha256,
        timeout_seconds=timeout_seconds,
        max_bytes=max_bytes,
        transport=httpx.MockTransport(answer),
        sleep=lambda seconds: None,
    )


def failure(out: Path, answer: Callable[[httpx.Request], httpx.Response], **options: float) -> failures.StartFailure:
    with pytest.raises(failures.StartFailure) as caught:
        fetch(out, answer, **options)  # type: ignore[arg-type]
    assert "secret" not in caught.value.message
    assert list(out.parent.iterdir()) == []
    return caught.value


def ok(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=CONTENT)


def test_the_file_appears_whole_and_verified(tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.skops"
    assert fetch(out, ok) == DIGEST
    assert out.read_bytes() == CONTENT
    assert list(out.parent.iterdir()) == [out]


def test_a_second_run_finds_the_work_done(tmp_path: Path) -> None:
    out = tmp_path / "model.skops"
    fetch(out, ok)
    assert fetch(out, lambda _: pytest.fail("it was fetched again")) == DIGEST


def test_a_file_with_another_digest_is_never_left_behind(tmp_path: Path) -> None:
    result = failure(tmp_path / "model.skops", lambda _: httpx.Response(200, content=b"other"))
    assert result.reason == failures.MODEL_DIGEST_MISMATCH


def test_a_wrong_file_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    out = tmp_path / "model.skops"
    out.write_bytes(b"before")
    with pytest.raises(failures.StartFailure):
        fetch(out, lambda _: httpx.Response(200, content=b"other"))
    assert out.read_bytes() == b"before"


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 3), (429, 3)])
def test_what_may_pass_is_tried_again_and_what_may_not_is_not(tmp_path: Path, status: int, tries: int) -> None:
    seen: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(status)
        return httpx.Response(status) if len(seen) < 3 else ok(request)

    out = tmp_path / "model.skops"
    if tries == 1:
        assert str(status) in failure(out, answer).message
    else:
        assert fetch(out, answer) == DIGEST
    assert len(seen) == tries


def test_a_download_that_breaks_off_starts_anew(tmp_path: Path) -> None:
    tries: list[int] = []

    def broken() -> Iterator[bytes]:
        yield CONTENT[:100]
        raise httpx.ReadError("connection reset")

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        return httpx.Response(200, content=broken()) if len(tries) == 1 else ok(request)

    assert fetch(tmp_path / "model.skops", answer) == DIGEST
    assert len(tries) == 2


def test_gives_up_when_the_time_is_up(tmp_path: Path) -> None:
    result = failure(tmp_path / "model.skops", lambda _: httpx.Response(503), timeout_seconds=0.2)
    assert result.reason == failures.MODEL_FETCH_FAILED
    assert "503" in result.message


class SlowPeer:
    """Sends `head` to whoever connects, then a byte now and then, until they leave or it is closed."""

    def __init__(self, head: bytes, drop: bytes) -> None:
        self._head = head
        self._drop = drop
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        client, _ = self._listener.accept()
        with client, contextlib.suppress(ConnectionError):
            client.sendall(self._head)
            while not self._closed.wait(0.02):
                client.sendall(self._drop)

    def left(self) -> bool:
        """Tells whether the client has gone."""
        self._thread.join(timeout=20)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._listener.close()


OK_HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"


@pytest.mark.parametrize(
    ("scheme", "head", "drop"),
    [("http", b"", b""), ("https", b"", b""), ("http", b"HTTP/1.1 200 OK\r\nx: ", b"x"), ("http", OK_HEAD, b"x")],
    ids=["no answer", "no handshake", "header drips", "body drips"],
)
def test_a_slow_server_does_not_outlast_the_time_for_all_tries(
    tmp_path: Path, scheme: str, head: bytes, drop: bytes
) -> None:
    peer = SlowPeer(head, drop)
    started = time.monotonic()
    try:
        with pytest.raises(failures.StartFailure, match=r"in time.*--timeout-seconds") as caught:
            fetching.fetch(f"{scheme}://{peer.address}/m.skops", tmp_path / "out", None, timeout_seconds=0.5)
        assert time.monotonic() - started < 5
        assert caught.value.reason == failures.MODEL_FETCH_FAILED
        assert list(tmp_path.iterdir()) == []
        assert head is not OK_HEAD or peer.left()
    finally:
        peer.close()


class Package:
    """A package's address, which counts what is asked for."""

    def __init__(self) -> None:
        files = {name: name.encode() for name in fetching.PACKAGE_FILES}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self.files = {**files, fetching.MANIFEST: json.dumps({"files": digests}).encode()}
        self.digest = hashlib.sha256(self.files[fetching.MANIFEST]).hexdigest()
        self.asked = 0

    def fetch(self, out: Path) -> str:
        transport = httpx.MockTransport(self._answer)
        return fetching.fetch("https://models.example/churn/", out, self.digest, transport=transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(200, content=self.files[request.url.path.removeprefix("/churn/")])


def test_a_package_that_is_whole_is_not_fetched_again(tmp_path: Path) -> None:
    package = Package()
    assert package.fetch(tmp_path / "out") == package.fetch(tmp_path / "out") == package.digest
    assert package.asked == len(package.files)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"damaged")], ids=["lost", "damaged"])
@pytest.mark.parametrize("name", [*fetching.PACKAGE_FILES, fetching.MANIFEST])
def test_a_package_that_has_lost_a_file_is_made_whole(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    package, out = Package(), tmp_path / "out"
    package.fetch(out)
    damage(out / name)
    assert package.fetch(out) == package.digest
    assert {path.name: path.read_bytes() for path in out.iterdir()} == package.files


def test_what_failed_before_the_time_was_up_is_told(tmp_path: Path) -> None:
    released = threading.Event()
    tries: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        if len(tries) > 1:
            released.wait(20)
        return httpx.Response(503)

    message = failure(tmp_path / "model.skops", answer, timeout_seconds=1.0).message
    released.set()
    assert "in time" in message
    assert "503" in message


def test_a_package_has_the_time_once_and_not_for_each_file(tmp_path: Path) -> None:
    released = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(fetching.MANIFEST):
            return httpx.Response(200, json={"files": dict.fromkeys(fetching.PACKAGE_FILES, DIGEST)})
        released.wait(20)
        return ok(request)

    with pytest.raises(failures.StartFailure, match=r"model\.skops.*in time"):
        fetching.fetch(
            "https://models.example/churn/",
            tmp_path / "out",
            None,
            timeout_seconds=0.5,
            transport=httpx.MockTransport(answer),
        )
    released.set()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_hangs_does_not_outlast_it_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Store:
        def open(self, *args: object, **options: object) -> io.BytesIO:
            released.wait(20)
            return io.BytesIO(CONTENT)

    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda protocol: Store)
    with pytest.raises(failures.StartFailure, match="in time"):
        fetching.fetch("s3://models/churn.skops", tmp_path / "out", DIGEST, timeout_seconds=0.5)
    assert not released.is_set()
    released.set()
    assert list(tmp_path.iterdir()) == []


def test_a_file_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    assert "100 bytes" in failure(tmp_path / "model.skops", ok, max_bytes=100).message


def test_follows_a_redirect_but_not_in_circles(tmp_path: Path) -> None:
    def once(request: httpx.Request) -> httpx.Response:
        return ok(request) if request.url.path == "/b" else httpx.Response(302, headers={"location": "/b"})

    assert fetch(tmp_path / "model.skops", once) == DIGEST
    (tmp_path / "model.skops").unlink()
    result = failure(tmp_path / "model.skops", lambda _: httpx.Response(302, headers={"location": "/b"}))
    assert "redirects" in result.message


@pytest.mark.parametrize("location", ["ftp://x/y", "file:///etc/passwd", "http://a:port/"])
def test_a_redirect_to_what_is_not_on_the_web_is_not_tried_again(tmp_path: Path, location: str) -> None:
    peer = SlowPeer(f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode(), b"")
    try:
        with pytest.raises(failures.StartFailure, match="redirects to, what is no http or https URL"):
            fetching.fetch(f"http://{peer.address}/m", tmp_path / "out", None, timeout_seconds=2)
    finally:
        peer.close()


def test_what_cannot_be_written_is_not_laid_on_the_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = failure(tmp_path / "model.skops", ok).message
    assert f"{tmp_path / 'model.skops'} cannot be written: No space left on device; " in message
    assert "free space where --out leads" in message
    assert "the model's URI" not in message


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_copies_a_local_file(tmp_path: Path, prefix: str) -> None:
    source, out = tmp_path / "a file", tmp_path / "out"
    source.write_bytes(CONTENT)
    assert fetching.fetch(f"{prefix}{source}", out, DIGEST) == DIGEST
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "uri", ["/no/such/file", "nonsense://host/file", "http://", "http:///x", "https:x", "memory://none"]
)
def test_a_place_that_cannot_be_read_is_named(tmp_path: Path, uri: str) -> None:
    with pytest.raises(failures.StartFailure) as caught:
        fetching.fetch(uri, tmp_path / "out", DIGEST, sleep=lambda _: pytest.fail("it was tried again"))
    assert caught.value.reason == failures.MODEL_FETCH_FAILED
    assert uri.split(":", maxsplit=1)[0] in caught.value.message


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:secret@[bad/x?secret",
        "http://user:secret@a..b/x?secret",
        "http://user:secret@a\uff0fb/x",
        "http://[bad/",
        "http://a:port/x#secret",
        "http://models.example/\udcff",
    ],
)
def test_what_is_no_url_is_said_to_be_none(tmp_path: Path, uri: str) -> None:
    with pytest.raises(failures.StartFailure, match="not a valid URL") as caught:
        fetching.fetch(uri, tmp_path / "out", None)
    assert caught.value.reason == failures.MODEL_FETCH_FAILED
    assert "from http://" in caught.value.message
    assert "secret" not in caught.value.message


def test_an_answer_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    tries: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Garbage())

    assert "not encoded as it says" in failure(tmp_path / "model.skops", answer).message
    assert len(tries) == 1


class Garbage(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b"garbage"


@pytest.mark.parametrize(
    ("variable", "value"), [("SSL_CERT_FILE", "/none"), ("HTTPS_PROXY", "ftp://a"), ("HTTPS_PROXY", "socks5://a")]
)
def test_a_wrong_setting_of_the_environment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(failures.StartFailure, match="check SSL_CERT_FILE, SSL_CERT_DIR and the proxy"):
        fetching.fetch(URI, tmp_path / "out", None)


@pytest.mark.parametrize("content", [b"[" * 200_000, b"{", b"[]", b"{}", b'{"files": []}', b"\xff"])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(failures.StartFailure, match=r"its kedge\.json is not a package's manifest"):
        fetching.fetch(
            "https://models.example/churn/",
            tmp_path / "out",
            None,
            transport=httpx.MockTransport(lambda _: httpx.Response(200, content=content)),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "kedge[s3]"), ("gs", "kedge[gs]")])
def test_a_store_whose_library_is_missing_is_told_how_to_get_it(
    tmp_path: Path, scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(failures.StartFailure) as caught:
        fetching.fetch(f"{scheme}://bucket/model.skops", tmp_path / "out", DIGEST)
    assert caught.value.reason == failures.MODEL_FETCH_FAILED
    assert extra in caught.value.message


class BotocoreError(Exception):
    """Carries its answer as botocore's exceptions do."""

    def __init__(self, status: int) -> None:
        super().__init__("reduce your request rate")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(("status", "tries"), [(503, 3), (429, 3), (400, 1), (403, 1)])
def test_a_store_is_tried_again_where_that_may_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, tries: int
) -> None:
    seen: list[int] = []

    class Store:
        def open(self, *args: object, **options: object) -> io.BytesIO:
            seen.append(status)
            if len(seen) < 3:
                raise OSError(errno.EIO, "failed") from BotocoreError(status)
            return io.BytesIO(CONTENT)

    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda protocol: Store)

    def fetch_it() -> str:
        return fetching.fetch("s3://models/churn.skops", tmp_path / "out", DIGEST, sleep=lambda seconds: None)

    if tries == 1:
        with pytest.raises(failures.StartFailure, match="AWS_ACCESS_KEY_ID"):
            fetch_it()
    else:
        assert fetch_it() == DIGEST
    assert len(seen) == tries


def test_what_looks_like_a_chain_of_stores_reads_no_local_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(failures.StartFailure):
        fetching.fetch(f"memory://a::file://{tmp_path}/secret", tmp_path / "out", None)


def test_reads_from_a_store_that_fsspec_knows(tmp_path: Path) -> None:
    with fsspec.open("memory://models/churn.skops", "wb") as file:
        file.write(CONTENT)
    out = tmp_path / "model.skops"
    assert fetching.fetch("memory://models/churn.skops", out, DIGEST) == DIGEST
    assert out.read_bytes() == CONTENT
