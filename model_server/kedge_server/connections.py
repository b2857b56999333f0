"""uvicorn's HTTP/1.1 protocol with what a well-behaved pod needs besides.

Each connection knows when its current request's first byte came, has a maximum age
with jitter, and ends requests that are sent too slowly or with endless headers. The
work that needs a clock is done by one sweep over all connections, so that a request
pays for none of it.
"""

from __future__ import annotations

import random
import time
from typing import Any

import httptools
from uvicorn.protocols.http import httptools_impl

from kedge_server import encoding, express, protocol
from kedge_server.settings import Settings

# Clients behind a proxy keep idle connections for up to ten minutes. The side that
# closes an idle connection may cut off a request that is under way, so let it be them.
IDLE_SECONDS = 620
# A share of the age, so that connections opened together do not all end together.
_JITTER = 0.1

ARRIVED = "kedge.arrived"
CONNECTION = "kedge.connection"


def protocol_class(settings: Settings, plain: express.Handler | None = None) -> type[httptools_impl.HttpToolsProtocol]:
    """Returns uvicorn's protocol class with these settings in it, as uvicorn makes its instances.

    Args:
        settings: Ages, limits and times.
        plain: Answers plain requests to its targets, without ASGI.
    """

    class ConfiguredConnection(Connection):
        max_age_seconds = settings.max_connection_age_seconds
        max_header_bytes = settings.limits.max_header_bytes
        receive_timeout_seconds = settings.limits.receive_timeout_seconds
        max_connections = settings.limits.max_connections
        handler = plain
        who = f"{protocol.VERSION_HEADER}: {settings.model_version}\r\n".encode()

    return ConfiguredConnection


class Connection(httptools_impl.HttpToolsProtocol):
    """One client connection."""

    max_age_seconds = 30.0
    max_header_bytes = 64 * 1024
    receive_timeout_seconds = 20.0
    max_connections = 4096
    # A header line that every answer has; uvicorn adds it to those of the application.
    who = b""
    handler: express.Handler | None = None

    opened_at: float
    expires_at: float
    # Since when a request is being received; None between requests.
    receiving_since: float | None = None
    # Since when nothing is being asked; None while something is.
    idle_since: float | None = None
    requests = 0
    _header_bytes = 0
    _in_header = False
    # Whether a request came to its end in the piece of data that is being parsed.
    _ended_one = False

    def connection_made(self, transport: Any) -> None:
        """Starts the connection's age."""
        self.opened_at = time.monotonic()
        self.expires_at = self.opened_at + self.max_age_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(b"503 Service Unavailable", "too many connections", b"retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and bounds what it may keep of a header."""
        if self.transport.is_closing():
            return
        self._ended_one = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._stay(data[exc.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        # Where a header begins in a piece that also ends another request is not known; such a piece is not counted.
        if self._in_header and not self._ended_one:
            self._header_bytes += len(data)
            if self._header_bytes > self.max_header_bytes:
                self._refuse(b"431 Request Header Fields Too Large", "the headers are too large")

    def _stay(self, rest: bytes) -> None:
        """Reads a request again without its wish for another protocol, which a server may ignore (RFC 9110, 7.8).

        The parser leaves the body of such a request unread. Java's HttpClient wishes for HTTP/2 by default.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(b"400 Bad Request", "CONNECT is not served")
            return
        head = [b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join((*head, b"\r\n", rest)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets go of what refers back to the connection.

        Thousands of small headers are megabytes, but to the garbage collector, which looks
        when many containers have been made, they are next to nothing: cycles with them
        would pile up.
        """
        super().connection_lost(exc)
        if isinstance(self.cycle, express.Exchange) and self.cycle.more_body and self.handler is not None:
            self.handler.abandon(self.cycle)
        self.scope = {}  # type: ignore[typeddict-item]
        self.headers = []
        self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    def on_message_begin(self) -> None:
        """Stamps the request with its arrival."""
        super().on_message_begin()
        self._in_header = True
        self._header_bytes = 0
        self.idle_since = None
        if self.receiving_since is None:
            self.receiving_since = time.monotonic()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[ARRIVED] = self.receiving_since
        scope[CONNECTION] = self

    def on_headers_complete(self) -> None:
        """Starts the request, on the short way if it is a plain one."""
        self._in_header = False
        if self.parser.should_upgrade():
            return
        self.requests += 1
        handler = self.handler
        if (
            handler is not None
            and self.url in handler.targets
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and self.parser.get_method() == b"POST"
            and express.is_plain(self.headers, handler.max_body_bytes)
        ):
            keep_alive = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
            arrived = self.receiving_since or 0.0
            self.cycle = express.Exchange(self, self.headers, arrived, keep_alive=keep_alive)  # type: ignore[assignment]
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keeps a piece of the body."""
        if isinstance(self.cycle, express.Exchange):
            self.cycle.body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends the receiving of the request."""
        self._ended_one = True
        if self.parser.should_upgrade():
            return
        self.receiving_since = None
        exchange = self.cycle
        if isinstance(exchange, express.Exchange):
            if self.handler is not None and exchange.more_body:
                exchange.more_body = False
                self.handler.take(exchange, exchange.body[0] if len(exchange.body) == 1 else b"".join(exchange.body))
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Goes on to the next request; the sweep looks after idle connections, not a timer for each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.idle_since = time.monotonic()

    def default_head(self) -> bytes:
        """Returns the headers that every answer has, which uvicorn renews once a second."""
        return b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP, in the form of every other error."""
        self._refuse(b"400 Bad Request", msg)

    @property
    def busy(self) -> bool:
        """Tells whether a request is being received or answered."""
        return self.receiving_since is not None or not (self.cycle is None or self.cycle.response_complete)

    @property
    def answering(self) -> bool:
        """Tells whether a request that has come whole waits for its answer."""
        cycle = self.cycle
        return bool(self.pipeline) or not (cycle is None or cycle.response_complete or cycle.more_body)

    @property
    def gone(self) -> bool:
        """Tells whether nothing that is sent now can arrive."""
        return bool(self.transport.is_closing())

    def sweep(self, now: float) -> None:
        """Ends the connection when it has been idle, or its request been coming in, for too long."""
        if self.idle_since is not None and now - self.idle_since > IDLE_SECONDS:
            self.close_idle()
        # Whoever connects has something to ask.
        if not self.requests and now - self.opened_at > self.receive_timeout_seconds:
            self.close_idle()
        if self.receiving_since is None or now - self.receiving_since < self.receive_timeout_seconds:
            return
        # The answer to what came before goes out first, and in time: the model's time is bounded too.
        if self.answering:
            return
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            return
        self._refuse(b"408 Request Timeout", "the request did not arrive in time")

    def close_idle(self) -> None:
        """Ends the connection between two requests."""
        if not self.busy and not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: bytes, message: str, header: bytes = b"") -> None:
        """Answers outside any request of the application, and closes."""
        if self.transport.is_closing():
            return
        body = encoding.error(message)
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\ncontent-type: application/json\r\nconnection: close\r\n" + header +
            self.who +
            b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )  # fmt: skip
        self.transport.close()
