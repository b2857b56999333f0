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
import re
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import httpx

from kedge_server import failures, reading

# The names of a package's files are here because `packages` imports scikit-learn, which
# an init container need not.
MANIFEST = "kedge.json"
PACKAGE_FILES = ("model.skops", "profile.json", "golden.json")

_QUERY = re.compile(r"[?#].*", re.DOTALL)
_USER = re.compile(r"(?<=://)[^/]*@")

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0

DEFAULT_TIMEOUT_SECONDS = 300.0
DEFAULT_MAX_BYTES = 8 << 30


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
        is_package = urllib.parse.urlsplit(uri).path.endswith("/")
    except ValueError as exc:
        raise _failed(_shown(uri), "it is not a valid URL") from exc
    try:
        if is_package:
            return _fetch_package(uri, out, sha256, source)
        return _fetch_file(uri, out, sha256, source)
    except OSError as exc:
        why = f"{out} cannot be written: {exc.strerror or exc}"
        raise _failed(_shown(uri), why, "check the permissions and the free space where --out leads") from exc


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
        files = _files_of(out / MANIFEST, _shown(uri))
        if all(_is_there(out / name, expected) for name, expected in files.items()):
            return sha256.lower()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        digest = _fetch_file(_join(uri, MANIFEST), partial / MANIFEST, sha256, source)
        for name, expected in _files_of(partial / MANIFEST, _shown(uri)).items():
            _fetch_file(_join(uri, name), partial / name, expected, source)
        partial.chmod(0o755)
        if out.is_dir():
            # Another version, or what has lost or damaged a file. The manifest goes last,
            # so that an interrupted run leaves none that is right beside what is old.
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
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
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
    before = ""
    while True:
        try:
            return _once(uri, out, sha256, source)
        except reading.UnreadableError as exc:
            raise _failed(shown, exc.why + before, exc.remedy) from exc
        except reading.TransientError as exc:
            if time.monotonic() + pause >= source.deadline:
                why = f"{exc.why}, also when tried again for {source.timeout_seconds:g} seconds"
                raise _failed(shown, why, exc.remedy) from exc
            _log.warning("the model could not be fetched; trying again", extra={"uri": shown, "error": exc.why})
            before = f" (the try before: {exc.why})"
            source.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _once(uri: str, out: Path, sha256: str | None, source: _Source) -> str:
    shown = _shown(uri)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    digest = hashlib.sha256()
    size = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            partial.open("wb") as file,
            contextlib.closing(reading.pieces(uri, source.deadline, source.transport)) as pieces,
        ):
            for piece in pieces:
                size += len(piece)
                if size > source.max_bytes:
                    raise _failed(shown, f"it has more than the {source.max_bytes} bytes that are allowed")
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        found = digest.hexdigest()
        failures.check_digest(shown, found, sha256)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    _log.info("fetched the model", extra={"uri": shown, "bytes": size, "sha256": found})
    return found


def _is_there(out: Path, sha256: str) -> bool:
    """Tells whether an earlier run of this init container has already done the work."""
    try:
        with out.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower()
    except OSError:
        return False


def _shown(uri: str) -> str:
    """Returns the address, even of what is no URL, without user and query: a signed URL is a credential."""
    return _USER.sub("", _QUERY.sub("", uri))


def _failed(shown: str, why: str, remedy: str = "check the model's URI") -> failures.StartFailure:
    return failures.StartFailure(
        failures.MODEL_FETCH_FAILED, f"The model cannot be fetched from {shown}: {why}; {remedy}."
    )
