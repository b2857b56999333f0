"""The ASGI application: routes, bodies, answers. What they mean is decided elsewhere.

Raw ASGI, because at a few tens of thousands of requests a second a framework's routing
and request objects cost more than the work that is left.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from kedge_server import (
    compression,
    connections,
    dataplane,
    decoding,
    encoding,
    express,
    metrics,
    predicting,
    protocol,
)
from kedge_server.errors import ClientError, Fault, MethodNotAllowedError, RequestError

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = b"application/json"
_CONTENT_TYPE_JSON = (b"content-type", _JSON)
_CLOSE = (b"connection", b"close")
# A body that is too large is read on for this many times the limit, so that its sender
# sees the 413 and not a connection that was reset under it.
_DISCARD_FACTOR = 4
_MAX_QUERY_FIELDS = 64


class _HungUpError(Exception):
    """The client went away before its request was complete."""


@dataclasses.dataclass(slots=True)
class _Headers:
    """What an infer request's headers say."""

    length: int = 0
    coding: bytes = b""
    json_length: int | None = None
    takes_gzip: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a status, a body, and headers besides the usual ones."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_CONTENT_TYPE_JSON,)


class App:
    """Serves the model's routes.

    Args:
        plane: Does what the routes ask for.
        clock: Monotonic seconds.
    """

    def __init__(self, plane: dataplane.Dataplane, clock: Callable[[], float] = time.monotonic) -> None:
        self._plane = plane
        self._clock = clock
        settings = plane.settings
        self._limits = settings.limits
        self._names = settings.model_name, settings.model_version
        model = f"/v2/models/{settings.model_name}"
        versioned = f"{model}/versions/{settings.model_version}"
        self._infer_paths = frozenset((f"{model}/infer", f"{versioned}/infer"))
        # What goes without ASGI when it can, as `express.Handler`.
        self.targets = frozenset(path.encode() for path in self._infer_paths)
        self.max_body_bytes = self._limits.max_body_bytes
        self._feedback_paths = frozenset((f"{model}/feedback", f"{versioned}/feedback"))
        self._pages: dict[str, Callable[[], Answer]] = {
            "/v2": self._server_metadata,
            # As the protocol's OpenAPI document has it.
            "/v2/": self._server_metadata,
            "/v2/health/live": lambda: Answer(200, encoding.to_json({"live": True})),
            "/v2/health/ready": self._readiness,
            model: self._model_metadata,
            versioned: self._model_metadata,
            f"{model}/ready": self._model_readiness,
            f"{versioned}/ready": self._model_readiness,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI scope."""
        if scope["type"] != "http":
            raise NotImplementedError(f"ASGI scope {scope['type']} is not served")
        path = scope["path"]
        if path in self._infer_paths:
            await self._infer(scope, receive, send)
            return
        try:
            if path in self._feedback_paths:
                answer = await self._take_feedback(scope, receive)
            else:
                answer = self._page(scope, path)
        except _HungUpError:
            return
        except Exception as exc:  # noqa: BLE001 - a bug of ours must be answered too
            fault, answer = _failure(exc)
            if path.endswith("/infer") and scope["method"] == "POST":
                await self._discard(receive)
                await self._send(scope, send, answer)
                self._count(scope, fault)
                return
        await self._send(scope, send, answer)

    def _page(self, scope: Scope, path: str) -> Answer:
        page: Callable[[], Answer]
        if path == "/metrics":
            page = functools.partial(self._metrics_page, scope["query_string"])
        elif path in self._pages:
            page = self._pages[path]
        else:
            raise self._not_found(path)
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowedError("GET")
        return page()

    def _not_found(self, path: str) -> ClientError:
        parts = path.split("/")
        if path.startswith("/v2/models/") and len(parts) > 3:
            self._plane.check_names(parts[3], parts[5] if len(parts) > 5 and parts[4] == "versions" else None)
        return ClientError("no such path; the protocol's paths start at /v2", 404)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            fault, answer = await self._predict(scope, receive)
        except _HungUpError:
            self._count(scope, Fault.CLIENT)
            return
        except Exception as exc:  # noqa: BLE001 - a bug of ours must be counted and answered too
            fault, answer = _failure(exc)
        await self._send(scope, send, answer)
        self._count(scope, fault)

    async def _predict(self, scope: Scope, receive: Receive) -> tuple[Fault, Answer]:
        if scope["method"] != "POST":
            raise MethodNotAllowedError("POST")
        headers = _headers_of(scope["headers"])
        body = await self._body(headers, receive)
        request, outcome = await self._plane.predict(
            lambda signature: decoding.infer_request(body, signature, headers.json_length), len(body)
        )
        if isinstance(outcome, RequestError):
            return _failure(outcome)
        return Fault.NONE, self._prediction(headers, request, outcome)

    def _prediction(
        self, headers: _Headers, request: protocol.InferRequest, outputs: Sequence[protocol.Output]
    ) -> Answer:
        content, json_length = encoding.infer_response(*self._names, request, outputs)
        if json_length is None and len(content) < compression.MIN_BYTES:
            return Answer(200, content)
        extra = [_CONTENT_TYPE_JSON] if json_length is None else _binary_headers(json_length)
        if len(content) >= compression.MIN_BYTES and headers.takes_gzip:
            content = compression.gzip(content)
            extra.append((b"content-encoding", b"gzip"))
        return Answer(200, content, tuple(extra))

    def take(self, exchange: express.Exchange, body: bytes) -> None:
        """Answers a plain infer request, now or when it has been predicted."""
        try:
            headers = _headers_of(exchange.headers)
            self._plane.submit(
                lambda signature: decoding.infer_request(body, signature, headers.json_length),
                len(body),
                functools.partial(self._answer, exchange, headers),
            )
        except Exception as exc:  # noqa: BLE001 - a bug of ours must be counted and answered too
            self._give(exchange, *_failure(exc))

    def abandon(self, exchange: express.Exchange) -> None:
        """Counts a request that was never whole."""
        self._plane.count(Fault.CLIENT, self._clock() - exchange.arrived)

    def _answer(
        self,
        exchange: express.Exchange,
        headers: _Headers,
        request: protocol.InferRequest,
        outcome: predicting.Outcome,
    ) -> None:
        if isinstance(outcome, RequestError):
            self._give(exchange, *_failure(outcome))
            return
        try:
            self._plane.remember(request, outcome)
            answer = self._prediction(headers, request, outcome)
        except Exception as exc:  # noqa: BLE001 - as above
            self._give(exchange, *_failure(exc))
        else:
            self._give(exchange, Fault.NONE, answer)

    def _give(self, exchange: express.Exchange, fault: Fault, answer: Answer) -> None:
        now = self._clock()
        last = self._plane.draining or now >= exchange.connection.expires_at
        exchange.send(answer.status, answer.headers, answer.body, last=last)
        self._plane.count(fault, self._clock() - exchange.arrived)

    async def _take_feedback(self, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST":
            raise MethodNotAllowedError("POST")
        body = await self._body(_headers_of(scope["headers"]), receive)
        return Answer(200, encoding.to_json(self._plane.feedback.receive(body)))

    async def _body(self, headers: _Headers, receive: Receive) -> bytes:
        limit = self._limits.max_body_bytes
        if headers.length > limit:
            await self._discard(receive)
            raise ClientError(f"the body has {headers.length} bytes; at most {limit} are taken", 413)
        body = await self._whole_body(receive, limit)
        return compression.decompress(body, headers.coding, limit) if headers.coding else body

    async def _whole_body(self, receive: Receive, limit: int) -> bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUpError
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return body
        chunks, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _HungUpError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                chunks.clear()
                await self._discard(receive)
                raise ClientError(f"the body has more than {limit} bytes", 413)
            chunks.append(chunk)
        return b"".join(chunks)

    async def _discard(self, receive: Receive) -> None:
        """Reads the rest of a body that nobody wants, up to a bound."""
        left = _DISCARD_FACTOR * self._limits.max_body_bytes
        while left > 0:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
            left -= len(message.get("body", b""))

    async def _send(self, scope: Scope, send: Send, answer: Answer) -> None:
        headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
        connection: connections.Connection | None = scope.get(connections.CONNECTION)
        if self._plane.draining or (connection is not None and self._clock() >= connection.expires_at):
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _count(self, scope: Scope, fault: Fault) -> None:
        now = self._clock()
        self._plane.count(fault, now - scope.get(connections.ARRIVED, now))

    def _readiness(self) -> Answer:
        if self._plane.ready:
            return Answer(200, encoding.to_json({"ready": True}))
        why = "the server is shutting down" if self._plane.draining else "the model is not loaded yet"
        return Answer(503, encoding.to_json({"ready": False, "error": why}))

    def _model_readiness(self) -> Answer:
        ready = self._plane.ready
        return Answer(200 if ready else 503, encoding.to_json({"name": self._names[0], "ready": ready}))

    def _server_metadata(self) -> Answer:
        return Answer(200, encoding.to_json(self._plane.server_metadata()))

    def _model_metadata(self) -> Answer:
        return Answer(200, encoding.to_json(self._plane.model_metadata()))

    def _metrics_page(self, query: bytes) -> Answer:
        try:
            fields = urllib.parse.parse_qsl(query.decode("latin-1"), max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError as exc:
            raise ClientError(f"the query has more than {_MAX_QUERY_FIELDS} fields") from exc
        names = [value for key, value in fields if key == "name[]"]
        body = self._plane.metrics.render(names)
        return Answer(200, body, ((b"content-type", metrics.CONTENT_TYPE),))


def _headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> _Headers:
    headers = _Headers()
    for name, value in pairs:
        if name == b"content-length":
            headers.length = int(value)
        elif name == b"content-encoding":
            headers.coding = value.strip().lower()
        elif name == b"accept-encoding":
            headers.takes_gzip = compression.accepts_gzip(value)
        elif name == protocol.HEADER_LENGTH:
            if not value.isdigit() or len(value) > 12:
                raise ClientError("Inference-Header-Content-Length must be a number of bytes")
            headers.json_length = int(value)
    return headers


def _binary_headers(json_length: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/octet-stream"),
        (protocol.HEADER_LENGTH, str(json_length).encode()),
    ]


def _error_answer(exc: RequestError) -> Answer:
    return Answer(exc.status, encoding.error(exc.message), (_CONTENT_TYPE_JSON, *exc.headers))


def _failure(exc: Exception) -> tuple[Fault, Answer]:
    """Returns whose fault it is, and what the client is told."""
    if isinstance(exc, RequestError):
        return exc.fault, _error_answer(exc)
    _log.error("a request failed in the server's own code", exc_info=exc)
    return Fault.SERVER, Answer(500, encoding.error("the server failed; its log says how"))


async def tick(period_seconds: float, *actions: Callable[[], None]) -> None:
    """Calls each of `actions` in each period, until cancelled."""
    while True:
        await asyncio.sleep(period_seconds)
        for action in actions:
            action()
