"""Reads what a URI names, piece by piece, and tells what may pass from what will not.

A library's own words about a failed request are often one word ("Forbidden"), so what
goes wrong is told by its status, with what to look at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
import time
import urllib.parse
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx

_CHUNK_BYTES = 1 << 20
# Bounds what waits in memory for the disk.
_PIECES_AHEAD = 4
_CONNECT_SECONDS = 10.0
# For one piece; a server that says nothing for so long is asked again.
_READ_SECONDS = 30.0
_MAX_REDIRECTS = 5
# What a store's library reads ahead; its own default of 50 MiB would not fit the memory of a small pod.
_BLOCK_BYTES = 8 << 20
# What may be different a moment later.
_TRANSIENT_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
_TRANSIENT_ERRNOS = frozenset((errno.EAGAIN, errno.EBUSY, errno.EREMOTEIO))
# By name, because importing a store's library takes more than a second.
_TRANSIENT_TYPES = frozenset(
    (
        "aiohttp.client_exceptions.ClientError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
    )
)
_NO_CREDENTIALS = frozenset(("botocore.exceptions.NoCredentialsError", "google.auth.exceptions.GoogleAuthError"))
# Extras of the distribution that bring a scheme's library.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_SETTINGS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where the store is not Amazon's, AWS_ENDPOINT_URL",
    "gs": "FSSPEC_GS_TOKEN, which is a service account's key in JSON",
}
_HTTP_SETTINGS = "SSL_CERT_FILE, SSL_CERT_DIR and the proxy's variables in the environment"
_CHECK_URI = "check the model's URI"


class ReadError(Exception):
    """A URI cannot be read.

    Args:
        why: What is wrong.
        remedy: What to look at.
    """

    def __init__(self, why: str, remedy: str = _CHECK_URI) -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


class TransientError(ReadError):
    """Worth another try."""


class UnreadableError(ReadError):
    """Another try would not help."""


def pieces(uri: str, deadline: float, transport: httpx.BaseTransport | None = None) -> Generator[bytes, None, None]:
    """Gives the bytes of `uri` as they arrive.

    A thread reads them and is left behind when the time is up: how long it takes to look a name up,
    to shake hands or to give up is with each library, and a server that drips restarts every timeout.

    Args:
        uri: http, https, file, s3 or gs URI, or a plain path.
        deadline: By `time.monotonic`.
        transport: Takes the place of the network in tests.

    Raises:
        TransientError: It cannot be read now.
        UnreadableError: It cannot be read, or not in time.
    """
    arrived: queue.Queue[bytes | BaseException | None] = queue.Queue(_PIECES_AHEAD)
    unwanted = threading.Event()

    def read() -> None:
        try:
            for piece in _read(uri, transport):
                arrived.put(piece)
                if unwanted.is_set():
                    return
            arrived.put(None)
        except BaseException as exc:  # noqa: BLE001 - raised below, where somebody waits
            arrived.put(exc)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (piece := _next(arrived, deadline)) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        unwanted.set()
        # Makes room, in case the thread waits for some.
        with contextlib.suppress(queue.Empty):
            while True:
                arrived.get_nowait()


def _next(arrived: queue.Queue[bytes | BaseException | None], deadline: float) -> bytes | BaseException | None:
    with contextlib.suppress(queue.Empty):
        if (left := deadline - time.monotonic()) > 0:
            return arrived.get(timeout=left)
    raise UnreadableError("it did not arrive in time", "raise --timeout-seconds, or find out why it is slow")


def _read(uri: str, transport: httpx.BaseTransport | None) -> Iterator[bytes]:
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme in ("http", "https"):
        yield from _from_http(uri, transport)
    elif parts.scheme in ("file", ""):
        yield from _from_disk(Path(urllib.parse.unquote(parts.path)) if parts.scheme else Path(uri))
    else:
        yield from _from_store(uri, parts.scheme)


def _from_disk(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from iter(lambda: file.read(_CHUNK_BYTES), b"")
    except OSError as exc:
        raise UnreadableError(exc.strerror or str(exc)) from exc


def _from_http(uri: str, transport: httpx.BaseTransport | None) -> Iterator[bytes]:
    timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
    try:
        with (
            httpx.Client(
                timeout=timeout, follow_redirects=True, max_redirects=_MAX_REDIRECTS, transport=transport
            ) as client,
            client.stream("GET", uri, headers={"accept-encoding": "identity"}) as response,
        ):
            if response.status_code in _TRANSIENT_STATUSES:
                raise TransientError(f"the server answered {response.status_code}")
            if response.status_code != 200:
                raise UnreadableError(f"the server answered {response.status_code}")
            yield from response.iter_bytes()
    except httpx.TooManyRedirects as exc:
        raise UnreadableError(f"more than {_MAX_REDIRECTS} redirects") from exc
    except httpx.DecodingError as exc:
        raise UnreadableError(f"the server's answer is not encoded as it says: {exc}") from exc
    except httpx.TransportError as exc:
        # What tells a redirect to what is no URL from a server's broken answer is the context alone.
        if isinstance(exc, httpx.UnsupportedProtocol) or isinstance(exc.__context__, httpx.InvalidURL):
            raise UnreadableError("it is, or redirects to, what is no http or https URL with a host") from exc
        raise TransientError(f"{type(exc).__name__}: {exc}") from exc
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise UnreadableError(f"it is not a valid URL: {exc}") from exc
    except (OSError, ValueError, ImportError) as exc:
        raise UnreadableError(f"the HTTP client cannot be set up: {exc}", f"check {_HTTP_SETTINGS}") from exc


def _from_store(uri: str, scheme: str) -> Iterator[bytes]:
    """Reads an object in a store that fsspec knows: s3, gs, and what else is installed.

    Each store's library finds endpoint and credentials as its own tools do: in the
    environment, in files, or from the pod's service account.
    """
    # Else gcsfs first asks a control service, over gRPC, of what kind the bucket is, which needs a
    # permission of its own and 20 s where the service does not answer.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415 - most models come over HTTP or a mount

    try:
        store_class = fsspec.get_filesystem_class(scheme)
    except ValueError as exc:
        raise UnreadableError(f'scheme "{scheme}" is not one of http, https, file, s3, gs') from exc
    except ImportError as exc:
        extra = _EXTRAS.get(scheme, scheme)
        raise UnreadableError(
            f"this server was installed without kedge[{extra}]: {exc}", "install it with that extra"
        ) from exc
    try:
        # A store by its class, since fsspec.open would follow `::` to other stores and local files.
        with store_class().open(uri, "rb", block_size=_BLOCK_BYTES) as file:
            yield from iter(lambda: file.read(_CHUNK_BYTES), b"")
    except Exception as exc:
        raise _explained(exc, scheme) from exc


def _explained(exc: Exception, scheme: str) -> TransientError | UnreadableError:
    """Returns what a store's exception means; the libraries raise some fifty kinds."""
    if isinstance(exc, IndexError) and isinstance(exc.__context__, OSError):
        # s3fs reads the arguments of a broken connection's error, which may have none.
        exc = exc.__context__
    settings = _SETTINGS.get(_EXTRAS.get(scheme, scheme), "the store's settings in the environment")
    status = _status(exc)
    what = " ".join(str(exc).split()) or type(exc).__name__
    if isinstance(exc, FileNotFoundError):
        return UnreadableError(f"there is no such object: {what}", "check the bucket and the key in the model's URI")
    if isinstance(exc, PermissionError) or status in (401, 403):
        return UnreadableError(
            f"the store refused the credentials: {what}", f"check {settings}, and that they may read the bucket"
        )
    if _types(exc) & _NO_CREDENTIALS:
        return UnreadableError(what, f"set {settings}, or give the pod a service account that may read the bucket")
    if _is_transient(exc, status):
        return TransientError(f"{type(exc).__name__}: {what}", f"{_CHECK_URI} and {settings}")
    return UnreadableError(f"{type(exc).__name__}: {what}", f"{_CHECK_URI} and {settings}")


def _status(exc: Exception) -> int | None:
    """Returns the HTTP status behind an exception of s3fs (through botocore) or gcsfs."""
    response = getattr(exc.__cause__ or exc, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(exc, "code", None)
    return int(status) if str(status).isdigit() else None


def _is_transient(exc: Exception, status: int | None) -> bool:
    if isinstance(exc, (ConnectionError, TimeoutError)) or status in _TRANSIENT_STATUSES:
        return True
    if isinstance(exc, OSError) and exc.errno in _TRANSIENT_ERRNOS:
        return True
    return bool(_types(exc) & _TRANSIENT_TYPES)


def _types(exc: Exception) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(exc).__mro__}
