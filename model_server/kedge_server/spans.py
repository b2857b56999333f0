"""Makes OpenTelemetry spans of infer requests: one for the request, and in it the wait and the prediction.

All of it is put around the parts that serve, and only when traces are exported, so that
they know nothing of it. Attributes follow the semantic conventions for HTTP and RPC servers:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import kedge_server
from kedge_server import batching, connections, dataplane, predicting, protocol
from kedge_server.errors import Fault, RequestError
from kedge_server.settings import Settings
from kedge_server.signature import Signature

_log = logging.getLogger(__name__)

App = Callable[[Any, Any, Any], Awaitable[None]]

_INFER = "/infer"
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_GRPC_INFER = "/inference.GRPCInferenceService/ModelInfer"
# What a server answers for: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_GRPC_SERVER_ERRORS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)


@dataclasses.dataclass(slots=True)
class _Course:
    """When what happened to a traced request, in nanoseconds since the epoch."""

    request: protocol.InferRequest
    submitted: int
    started: int = 0
    ended: int = 0
    batch_requests: int = 0
    batch_rows: int = 0


class Spans:
    """The spans of one process.

    Sampling, limits, batching, the resource's attributes, endpoint and headers come from the
    standard variables, and propagation from OTEL_PROPAGATORS: W3C's trace context by default.

    Args:
        settings: The model's name and version, which name the service.
    """

    def __init__(self, settings: Settings) -> None:
        named = {
            "service.name": settings.model_name,
            "service.version": settings.model_version,
            "service.instance.id": socket.gethostname(),
        }
        resource = Resource.create().merge(Resource(named)).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        # Its queue is bounded: when the collector is slow, spans are dropped and nothing waits.
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("kedge_server", kedge_server.__version__)
        self._courses: dict[int, _Course] = {}
        for handler in logging.getLogger().handlers:
            handler.addFilter(_with_trace_ids)

    def close(self) -> None:
        """Exports what is left, for which the exporter takes its time, and ends."""
        self._provider.shutdown()

    def dataplane(self, settings: Settings, registry: Any) -> dataplane.Dataplane:
        """Returns a data plane whose predictions appear in the current span."""
        return _TracedDataplane(settings, registry, self)

    def around_app(self, app: App) -> App:
        """Returns an ASGI application that makes a span of each infer request to `app`."""

        async def traced(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not scope["path"].endswith(_INFER):
                await app(scope, receive, send)
                return
            status = 0

            async def noting(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            span = self._http_span(scope)
            token = context.attach(trace.set_span_in_context(span))
            try:
                await app(scope, receive, noting)
            finally:
                context.detach(token)
                if status:
                    span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    _mark(span, str(status))
                span.end()

        return traced

    def around_run(self, run: batching.Run) -> batching.Run:
        """Returns what predicts a batch and notes when."""

        def noting(requests: Sequence[protocol.InferRequest]) -> list[predicting.Outcome]:
            started = time.time_ns()
            outcomes = run(requests)
            ended = time.time_ns()
            rows = sum(request.rows.count for request in requests)
            for request in requests:
                course = self._courses.get(id(request))
                if course is not None:
                    course.started, course.ended = started, ended
                    course.batch_requests, course.batch_rows = len(requests), rows
            return outcomes

        return noting

    def interceptor(self) -> Any:
        """Returns a gRPC interceptor that makes a span of each infer call."""
        import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 - most servers go without it

        spans = self

        class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
            async def intercept_service(self, continuation: Any, details: Any) -> Any:
                handler = await continuation(details)
                if handler is None or details.method != _GRPC_INFER:
                    return handler
                metadata = details.invocation_metadata

                async def traced(request: Any, call: Any) -> Any:
                    return await spans.call(handler.unary_unary, metadata, request, call)

                return grpc.unary_unary_rpc_method_handler(
                    traced, handler.request_deserializer, handler.response_serializer
                )

        return Interceptor()

    async def call(self, answer: Any, metadata: Iterable[tuple[str, Any]], request: Any, call: Any) -> Any:
        """Answers one infer call in a span of its own."""
        import grpc  # noqa: PLC0415

        attributes = {
            "rpc.system": "grpc",
            "rpc.service": "inference.GRPCInferenceService",
            "rpc.method": "ModelInfer",
        }
        parent = _extracted((key, value) for key, value in metadata if isinstance(value, str))
        span = self._tracer.start_span(
            _GRPC_INFER.removeprefix("/"), parent, trace.SpanKind.SERVER, attributes, record_exception=False
        )
        token = context.attach(trace.set_span_in_context(span))
        code = grpc.StatusCode.CANCELLED
        try:
            answered = await answer(request, call)
        except grpc.aio.AbortError:
            code = next((known for known in grpc.StatusCode if call.code() in (known, known.value[0])), code)
            raise
        else:
            code = grpc.StatusCode.OK
            return answered
        finally:
            context.detach(token)
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            if code.name in _GRPC_SERVER_ERRORS:
                _mark(span, code.name)
            span.end()

    def begin(self, request: protocol.InferRequest) -> _Course:
        """Notes that a traced request is about to wait for its prediction."""
        course = self._courses[id(request)] = _Course(request, time.time_ns())
        return course

    def finish(self, course: _Course) -> None:
        """Makes spans of a request's course, below the current one."""
        del self._courses[id(course.request)]
        if not course.ended:
            return
        self._past("queue", course.submitted, course.started, {})
        batch = {"kedge.batch.requests": course.batch_requests, "kedge.batch.rows": course.batch_rows}
        self._past("predict", course.started, course.ended, batch)

    def _past(self, name: str, start: int, end: int, attributes: dict[str, int]) -> None:
        self._tracer.start_span(name, start_time=start, attributes=attributes).end(end)

    def _http_span(self, scope: Any) -> trace.Span:
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        route = (
            "/v2/models/{model}/versions/{version}/infer"
            if "/versions/" in scope["path"]
            else "/v2/models/{model}/infer"
        )
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "network.protocol.version": scope["http_version"],
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
        }
        if scope.get("client"):
            attributes["client.address"] = scope["client"][0]
        waited = time.monotonic() - scope.get(connections.ARRIVED, time.monotonic())
        return self._tracer.start_span(
            f"{method} {route}" if method != "_OTHER" else f"HTTP {route}",
            _extracted((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
            trace.SpanKind.SERVER,
            attributes,
            start_time=time.time_ns() - int(waited * 1e9),
        )


class _TracedDataplane(dataplane.Dataplane):
    def __init__(self, settings: Settings, registry: Any, spans: Spans) -> None:
        super().__init__(settings, registry)
        self._spans = spans

    async def predict(self, decode: dataplane.Decode, size: int) -> tuple[protocol.InferRequest, predicting.Outcome]:
        """Returns one infer request and its outcome, and says in the current span what became of it."""
        span = trace.get_current_span()
        if not span.is_recording():
            return await super().predict(decode, size)
        courses: list[_Course] = []

        def noting(signature: Signature) -> protocol.InferRequest:
            request = decode(signature)
            courses.append(self._spans.begin(request))
            return request

        try:
            request, outcome = await super().predict(noting, size)
        except RequestError as exc:
            _note(span, exc)
            raise
        else:
            if isinstance(outcome, RequestError):
                _note(span, outcome)
            return request, outcome
        finally:
            for course in courses:
                span.set_attribute("kedge.rows", course.request.rows.count)
                self._spans.finish(course)


def _note(span: trace.Span, error: RequestError) -> None:
    """Says whose fault an error is. Its message may quote a row, so it goes to the client alone."""
    span.set_attribute("kedge.fault", error.fault.value)
    if error.fault is Fault.SERVER:
        _log.error("a traced request failed", extra={"status": error.status})


def _extracted(pairs: Iterable[tuple[str, str]]) -> context.Context:
    """Returns the context that a request's headers carry; what is malformed is ignored."""
    carrier: dict[str, list[str]] = collections.defaultdict(list)
    for name, value in pairs:
        carrier[name].append(value)
    # https://www.w3.org/TR/trace-context/#traceparent-header: there is one.
    if len(carrier.get("traceparent", ())) > 1:
        del carrier["traceparent"]
    return propagate.extract(carrier, context.Context())


def _mark(span: trace.Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(trace.StatusCode.ERROR)


def _with_trace_ids(record: logging.LogRecord) -> bool:
    """Adds to a record about a request which trace it belongs to."""
    current = trace.get_current_span().get_span_context()
    if current.is_valid:
        record.trace_id = trace.format_trace_id(current.trace_id)
        record.span_id = trace.format_span_id(current.span_id)
    return True
