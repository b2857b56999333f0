"""The short way of an infer request from the parser to the worker and back.

ASGI costs a request a task, a scope, an event and half a dozen dictionaries, which is
more than decoding, counting and encoding one row together. So a plain infer request
goes without: its bytes are decoded where the parser has them, and its answer is
written in one piece by whoever has the outcome. Whatever is not plain (another path,
a content coding, chunks, a slow reader) takes the way through `rest`, and both ways
share what they decode, count and answer.

An `Exchange` stands where uvicorn keeps its request-response cycle, so that pipelining,
draining and disconnects go on as they are in uvicorn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Pairs = Sequence[tuple[bytes, bytes]]

# With one of these a request is not plain.
_SPECIAL = frozenset((b"transfer-encoding", b"content-encoding", b"expect"))


class _NoEvent:
    """Stands where uvicorn has an event that its own cycle waits for."""

    def set(self) -> None:
        """Does nothing: an exchange waits for nothing."""


_NO_EVENT = _NoEvent()


class Handler(Protocol):
    """What answers plain requests."""

    targets: frozenset[bytes]
    max_body_bytes: int

    def take(self, exchange: Exchange, body: bytes) -> None:
        """Answers `exchange` now or later, and never raises."""

    def abandon(self, exchange: Exchange) -> None:
        """Notes that the client went away before its request was complete."""


def is_plain(headers: Pairs, max_body_bytes: int) -> bool:
    """Tells whether a request's headers ask for nothing but its body's length."""
    length = -1
    for name, value in headers:
        if name in _SPECIAL:
            return False
        if name == b"content-length":
            length = int(value)
    return 0 <= length <= max_body_bytes


class Exchange:
    """One plain request and its answer.

    Args:
        connection: Where it came from.
        arrived: When its first byte came, monotonic seconds.
        keep_alive: Whether the client wants the connection to live on.
    """

    __slots__ = (
        "arrived",
        "body",
        "connection",
        "disconnected",
        "headers",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "response_started",
    )

    def __init__(self, connection: Any, headers: Pairs, arrived: float, *, keep_alive: bool) -> None:
        self.connection = connection
        self.headers = headers
        self.arrived = arrived
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.message_event = _NO_EVENT
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def send(self, status: int, headers: Pairs, body: bytes, *, last: bool) -> None:
        """Writes the whole answer, and ends the connection when it is its `last`."""
        transport = self.connection.transport
        self.response_started = self.response_complete = True
        if self.disconnected or transport.is_closing():
            return
        keep_alive = self.keep_alive and not last
        parts = [STATUS_LINE[status], self.connection.default_head()]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: ", str(len(body)).encode(), b"\r\n\r\n", body)
        transport.write(b"".join(parts))
        if not keep_alive:
            transport.close()
        self.connection.on_response_complete()
