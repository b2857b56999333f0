"""Brings a model's file to where the server will find it: all of it and the right one, or nothing.

Runs as a pod's init container. The bytes go to a temporary file beside the target,
are hashed on the way, and take the target's name only when the digest is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from kedge_server import failures

# The names of a package's files are here because `packages` imports scikit-learn, which
# an init container need not.
MANIFEST = "kedge.json"
PACKAGE_FILES = ("model.skops", "profile.json", "golden.json")

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
# A signed URL is a credential, so messages carry the address without its query.
_CONNECT_SECONDS = 10.0
_MAX_REDIRECTS = 5
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
# Extras of the distribution that bring a scheme's library.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
# What may be different a moment later.
_TRANSIENT_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))

DEFAULT_TIMEOUT_SECONDS = 300.0
DEFAULT_MAX_BYTES = 8 << 30


class _TransientError(Exception):
    """Worth another try before the time is up."""


def fetch(
    uri: str,
    out: Path,
    sha256: str | None,
    *,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_bytes: int = DEFAULT_MAX_BYTES,
    transport: httpx.BaseTransport | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Copies the file or package at `uri` to `out` and returns its digest in hex.

    A URI whose path ends in a slash is a package: its manifest is fetched and checked
    first, then the files that it names, each with its own digest.

    Args:
        uri: http, https, file, s3 or gs URI, or a plain path.
        out: Where it goes; left as it was on any failure.
        sha256: What it must hash to, or None to take it as it is.
        timeout_seconds: For all tries together.
        max_bytes: A larger file is refused.
        transport: Takes the place of the network in tests.
        sleep: Pauses between tries.

    Raises:
        StartFailure: ModelFetchFailed or ModelDigestMismatch.
    """
    deadline = time.monotonic() + timeout_seconds
    source = _Source(timeout_seconds, deadline, max_bytes, transport, sleep)
    try:
        if urllib.parse.urlsplit(uri).path.endswith("/"):
            return _fetch_package(uri, out, sha256, source)
        return _fetch_file(uri, out, sha256, source)
    except OSError as exc:
        raise _failed(_shown(uri), exc.strerror or str(exc)) from exc


@dataclasses.dataclass(frozen=True)
class _Source:
    """How the tries of one fetch are made."""

    timeout_seconds: float
    deadline: float
    max_bytes: int
    transport: httpx.BaseTransport | None
    sleep: Callable[[float], None]


def _fetch_package(uri: str, out: Path, sha256: str | None, source: _Source) -> str:
    """Fetches a package into a directory beside `out`, which takes its name when it is whole."""
    if sha256 is not None and _is_there(out / MANIFEST, sha256):
        return sha256.lower()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        digest = _fetch_file(_join(uri, MANIFEST), partial / MANIFEST, sha256, source)
        for name, expected in _files_of(partial / MANIFEST, _shown(uri)).items():
            _fetch_file(_join(uri, name), partial / name, expected, source)
        partial.chmod(0o755)
        if out.is_dir():
            # Another version, or what an interrupted run left. The manifest goes last,
            # since it is what says that the rest is there.
            for name in (*PACKAGE_FILES, MANIFEST):
                (partial / name).replace(out / name)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def _files_of(manifest: Path, shown: str) -> dict[str, str]:
    """Returns the digests by name; a name is one of the format's, so it cannot lead elsewhere."""
    try:
        files = json.loads(manifest.read_bytes())["files"]
        return {name: str(files[name]) for name in PACKAGE_FILES}
    except (ValueError, KeyError, TypeError) as exc:
        raise _failed(shown, f"its {MANIFEST} is not a package's manifest") from exc


def _join(uri: str, name: str) -> str:
    parts = urllib.parse.urlsplit(uri)
    if not parts.scheme:
        return uri + name
    return urllib.parse.urlunsplit(parts._replace(path=parts.path + name))


def _fetch_file(uri: str, out: Path, sha256: str | None, source: _Source) -> str:
    if sha256 is not None and _is_there(out, sha256):
        return sha256.lower()
    shown = _shown(uri)
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return _once(uri, out, sha256, source)
        except _TransientError as exc:
            if time.monotonic() + pause >= source.deadline:
                raise _failed(shown, f"{exc}, also when tried again for {source.timeout_seconds:g} seconds") from exc
            _log.warning("the model could not be fetched; trying again", extra={"uri": shown, "error": str(exc)})
            source.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _once(uri: str, out: Path, sha256: str | None, source: _Source) -> str:
    shown = _shown(uri)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    digest = hashlib.sha256()
    size = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file, _chunks(uri, source.transport) as chunks:
            for chunk in chunks:
                size += len(chunk)
                if size > source.max_bytes:
                    raise _failed(shown, f"it has more than the {source.max_bytes} bytes that are allowed")
                if time.monotonic() > source.deadline:
                    raise _failed(shown, "it did not arrive in time; raise --timeout-seconds")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        found = digest.hexdigest()
        failures.check_digest(shown, found, sha256)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    _log.info("fetched the model", extra={"uri": shown, "bytes": size, "sha256": found})
    return found


@contextlib.contextmanager
def _chunks(uri: str, transport: httpx.BaseTransport | None) -> Iterator[Iterator[bytes]]:
    """Opens `uri` and gives its bytes piece by piece."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme in ("http", "https"):
        with _http_chunks(uri, transport) as chunks:
            yield chunks
    elif parts.scheme in ("file", ""):
        path = Path(urllib.parse.unquote(parts.path)) if parts.scheme else Path(uri)
        with path.open("rb") as file:
            yield iter(lambda: file.read(_CHUNK_BYTES), b"")
    else:
        with _stored_chunks(uri, parts.scheme) as chunks:
            yield chunks


@contextlib.contextmanager
def _stored_chunks(uri: str, scheme: str) -> Iterator[Iterator[bytes]]:
    """Opens an object in a store that fsspec knows: s3, gs, and what else is installed.

    Each store's library finds credentials as its own tools do: in the environment, in
    files, or from the pod's service account.
    """
    import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415 - most models come over HTTP or a mount

    try:
        opened = fsspec.open(uri, "rb").open()
    except ValueError as exc:
        known = "http, https, file, s3, gs"
        raise _failed(_shown(uri), f'scheme "{scheme}" is not one of {known}: {exc}') from exc
    except ImportError as exc:
        extra = _EXTRAS.get(scheme, scheme)
        raise _failed(_shown(uri), f"this server was installed without kedge[{extra}]: {exc}") from exc
    except OSError:
        raise
    except Exception as exc:
        raise _failed(_shown(uri), f"{type(exc).__name__}: {exc}") from exc
    with opened as file:
        yield iter(lambda: file.read(_CHUNK_BYTES), b"")


@contextlib.contextmanager
def _http_chunks(uri: str, transport: httpx.BaseTransport | None) -> Iterator[Iterator[bytes]]:
    timeout = httpx.Timeout(30.0, connect=_CONNECT_SECONDS)
    try:
        with (
            httpx.Client(
                timeout=timeout, follow_redirects=True, max_redirects=_MAX_REDIRECTS, transport=transport
            ) as client,
            client.stream("GET", uri, headers={"accept-encoding": "identity"}) as response,
        ):
            if response.status_code in _TRANSIENT_STATUSES:
                raise _TransientError(f"the server answered {response.status_code}")
            if response.status_code != 200:
                raise _failed(_shown(uri), f"the server answered {response.status_code}")
            yield response.iter_bytes(_CHUNK_BYTES)
    except httpx.TooManyRedirects as exc:
        raise _failed(_shown(uri), f"more than {_MAX_REDIRECTS} redirects") from exc
    except httpx.TransportError as exc:
        raise _TransientError(f"{type(exc).__name__}: {exc}") from exc
    except httpx.InvalidURL as exc:
        raise _failed(_shown(uri), f"it is not a valid URL: {exc}") from exc


def _is_there(out: Path, sha256: str) -> bool:
    """Tells whether an earlier run of this init container has already done the work."""
    try:
        with out.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower()
    except OSError:
        return False


def _shown(uri: str) -> str:
    parts = urllib.parse.urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def _failed(shown: str, why: str) -> failures.StartFailure:
    return failures.StartFailure(
        failures.MODEL_FETCH_FAILED, f"The model cannot be fetched from {shown}: {why}; check the model's URI."
    )
