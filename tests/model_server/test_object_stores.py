"""Models in buckets: S3 against versitygw, Google's against what an emulator answers."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.config  # type: ignore[import-untyped]
import pytest
import s3fs  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hack.lab import buckets
from tests.model_server import support

from kedge_server import checking, cli, failures, fetching, packing
from kedge_server.settings import Settings

pytestmark = pytest.mark.e2e

BUCKET = "models"
TOKEN = "not-a-secret"
ODD_NAME = "a name+with%odd (letters).skops"


@pytest.fixture(scope="module")
def package(iris: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Returns a package of the iris model, and its digest."""
    folder = tmp_path_factory.mktemp("package") / "iris"
    return folder, packing.package(iris, support.IRIS, folder, name="iris", version="1")


@pytest.fixture(scope="module")
def gateway(
    package: tuple[Path, str], iris_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[buckets.Gateway]:
    """Serves a bucket with a package and a bare model."""
    with buckets.running(tmp_path_factory.mktemp("buckets")) as running:
        client = s3fs.S3FileSystem(
            key=buckets.ACCESS_KEY, secret=buckets.SECRET_KEY, endpoint_url=running.endpoint, skip_instance_cache=True
        )
        client.mkdir(BUCKET)
        client.put(str(package[0]), f"{BUCKET}/teams/churn/", recursive=True)
        for name in ("iris.skops", ODD_NAME):
            client.put(str(iris_file), f"{BUCKET}/{name}")
        yield running


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes the machine's own settings away; fsspec would keep clients, with the settings they were made with."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store(gateway: buckets.Gateway, monkeypatch: pytest.MonkeyPatch) -> buckets.Gateway:
    """Puts the store's address and credentials into the environment."""
    for name, value in gateway.environment().items():
        monkeypatch.setenv(name, value)
    return gateway


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def failure(out: Path, uri: str, sha256: str | None = None, timeout_seconds: float = 60.0) -> str:
    """Returns the message with which a fetch fails, which leaves nothing behind."""
    with pytest.raises(failures.StartFailure) as caught:
        fetching.fetch(uri, out, sha256, timeout_seconds=timeout_seconds)
    assert list(out.parent.iterdir()) == []
    assert uri in caught.value.message
    assert buckets.SECRET_KEY not in caught.value.message
    return f"{caught.value.reason}: {caught.value.message}"


def test_a_package_is_fetched_by_its_prefix_and_reproduces_its_golden_rows(
    store: buckets.Gateway, package: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "iris"
    assert fetching.fetch(f"s3://{BUCKET}/teams/churn/iris/", out, package[1]) == package[1]
    assert {path.name: digest(path) for path in out.iterdir()} == {p.name: digest(p) for p in package[0].iterdir()}
    assert checking.check(Settings(model_name="m", model_path=out, sha256=package[1]))


@pytest.mark.parametrize("name", ["iris.skops", ODD_NAME])
def test_a_bare_model_is_fetched_as_an_init_container_does(
    store: buckets.Gateway, iris_file: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "model.skops"
    arguments = ["fetch", f"s3://{BUCKET}/{name}", "--sha256", digest(iris_file), "--out", str(out)]
    assert cli.main(arguments) == 0
    assert digest(out) == digest(iris_file)


def test_another_digest_is_refused(store: buckets.Gateway, package: tuple[Path, str], tmp_path: Path) -> None:
    for uri in (f"s3://{BUCKET}/iris.skops", f"s3://{BUCKET}/teams/churn/iris/"):
        with pytest.raises(failures.StartFailure) as caught:
            fetching.fetch(uri, tmp_path / "out", "0" * 64)
        assert caught.value.reason == failures.MODEL_DIGEST_MISMATCH
        assert uri in caught.value.message
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [f"{BUCKET}/none.skops", "nobody/iris.skops", f"{BUCKET}/teams/none/"])
def test_a_key_or_bucket_that_does_not_exist_is_said_to_be_missing(
    store: buckets.Gateway, tmp_path: Path, place: str
) -> None:
    with pytest.raises(failures.StartFailure) as caught:
        fetching.fetch(f"s3://{place}", tmp_path / "out", None)
    assert caught.value.reason == failures.MODEL_FETCH_FAILED
    assert f"s3://{place}" in caught.value.message
    assert "there is no such object" in caught.value.message
    assert "check the bucket and the key" in caught.value.message


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "refused the credentials"),
        ({"AWS_ACCESS_KEY_ID": "stranger"}, "No user exists"),
        ({"AWS_ACCESS_KEY_ID": ""}, "credentials"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "Invalid endpoint"),
    ],
    ids=["wrong secret", "unknown key", "no key", "no endpoint"],
)
def test_wrong_settings_are_named(
    store: buckets.Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], told: str
) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    message = failure(tmp_path / "out", f"s3://{BUCKET}/iris.skops")
    assert message.startswith(failures.MODEL_FETCH_FAILED)
    assert told in message
    assert "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in message


def test_the_endpoint_of_s3_alone_wins_over_that_of_all_services(
    store: buckets.Gateway, iris_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.endpoint)
    assert fetching.fetch(f"s3://{BUCKET}/iris.skops", tmp_path / "out", None) == digest(iris_file)


class Cut:
    """Hands bytes on to a store and breaks every connection off after the first `limit` bytes of its answers."""

    def __init__(self, port: int, limit: int) -> None:
        self.broken = 0
        self._port = port
        self._limit = limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://localhost:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._hand_on, args=(client,), daemon=True).start()

    def _hand_on(self, client: socket.socket) -> None:
        store = socket.create_connection(("localhost", self._port))
        threading.Thread(target=_pump, args=(client, store, 1 << 40), daemon=True).start()
        if _pump(store, client, self._limit):
            self.broken += 1
        for end in (client, store):
            # To close is not enough while the other thread reads from it.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _pump(source: socket.socket, target: socket.socket, limit: int) -> bool:
    """Copies until the source ends, or until `limit` bytes have passed, which it tells."""
    try:
        while limit > 0 and (data := source.recv(1 << 16)):
            target.sendall(data[:limit])
            limit -= len(data)
    except OSError:
        return False
    return limit <= 0


def test_a_download_that_breaks_off_again_and_again_leaves_nothing(
    store: buckets.Gateway, iris_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Cut(store.port, limit=iris_file.stat().st_size // 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cut.endpoint)
    message = failure(tmp_path / "out", f"s3://{BUCKET}/iris.skops", digest(iris_file), timeout_seconds=10)
    cut.close()
    assert cut.broken > 1
    assert "also when tried again" in message or "the try before" in message


def service_account(address: str) -> dict[str, str]:
    """Returns a service account's key as Google gives it, for a token server at `address`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k",
        "private_key": pem.decode(),
        "client_email": "reader@p.example",
        "token_uri": f"{address}/token",
    }


class Emulator(http.server.BaseHTTPRequestHandler):
    """Answers like Google's JSON API for the files of one folder."""

    folder: Path

    def do_GET(self) -> None:
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            self._send(401, b'{"error": {"code": 401, "message": "no token"}}')
            return
        parts = urllib.parse.urlsplit(self.path)
        name = urllib.parse.unquote(parts.path.rpartition("/o/")[2])
        path = self.folder / name
        if f"/b/{BUCKET}/o/" not in parts.path or not path.is_file():
            self._send(404, b'{"error": {"code": 404, "message": "No such object"}}')
        elif "alt=media" in parts.query or parts.path.startswith("/download"):
            first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
            self._send(206, path.read_bytes()[int(first) : int(last) + 1])
        else:
            about = {"name": name, "bucket": BUCKET, "size": str(path.stat().st_size), "generation": "1"}
            self._send(200, json.dumps(about).encode())

    def do_POST(self) -> None:
        """Gives a token to whoever signs for one, as a service account does."""
        self.rfile.read(int(self.headers["content-length"]))
        self._send(200, json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).encode())

    def _send(self, status: int, body: bytes) -> None:
        # The client goes away without waiting for the body of an error.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def test_a_package_is_fetched_from_google_s_store_too(
    package: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bucket").mkdir()
    shutil.copytree(package[0], tmp_path / "bucket" / "iris")
    monkeypatch.setattr(Emulator, "folder", tmp_path / "bucket", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Emulator) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        # What fsspec reads from the environment when it is imported.
        given: dict[str, Any] = {}
        fsspec.config.set_conf_env(given, {"FSSPEC_GS_TOKEN": json.dumps(service_account(address))})
        monkeypatch.setattr("fsspec.config.conf", given)
        out = tmp_path / "out"
        try:
            assert fetching.fetch(f"gs://{BUCKET}/iris/", out, package[1]) == package[1]
            assert {path.name for path in out.iterdir()} == {path.name for path in package[0].iterdir()}
            with pytest.raises(failures.StartFailure, match="there is no such object"):
                fetching.fetch(f"gs://{BUCKET}/none", tmp_path / "none", None)
        finally:
            fsspec.get_filesystem_class("gs").clear_instance_cache()
            server.shutdown()
