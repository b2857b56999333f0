"""Spans as a collector gets them, over OTLP/HTTP, from a real server."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest
import skops.io
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from tests.model_server import support
from tritonclient.grpc import service_pb2 as messages  # type: ignore[import-untyped]

from kedge_server import tracing
from kedge_server.settings import Settings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SERVER, INTERNAL, ERROR = 2, 1, 2
# Batches go out this often, so that tests need not wait.
EXPORT_MILLISECONDS = "50"


class Collector:
    """Takes spans as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, request: Any) -> None:
        assert path == "/v1/traces"
        for resource in request.resource_spans:
            self.resources.append(values(resource.resource))
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def of(self, trace_id: str) -> dict[str, Any]:
        """Returns the spans of a trace by name."""
        return {span.name: span for span in list(self.spans) if span.trace_id.hex() == trace_id}

    def wait_for(self, condition: Callable[[], bool]) -> None:
        support.wait_until(condition)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def values(holder: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in holder.attributes}


@pytest.fixture(scope="module")
def collecting() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def collector(collecting: Collector) -> Collector:
    """Returns a collector that has nothing yet; each test waits for all that it causes."""
    collecting.spans.clear()
    return collecting


@pytest.fixture(scope="module")
def churn_file(churn: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "churn.skops"
    skops.io.dump(churn, path)
    return path


class Traced:
    """A server that exports to a collector, and how to ask it."""

    def __init__(self, process: support.Process, grpc_port: int) -> None:
        self.process = process
        self.grpc_port = grpc_port
        self.http = httpx.Client(base_url=process.url)

    def infer(self, city: str = "Oslo", path: str = "/v2/models/m/infer", **headers: str) -> int:
        ages = support.tensor([20.0, 30.0], name="age")
        cities = support.tensor([city, "Rome"], name="city", datatype="BYTES")
        body = support.infer_body(ages, cities, id="request-1")
        return self.http.post(path, json=body, headers=headers).status_code


@contextlib.contextmanager
def serving(path: Path, endpoint: str, **variables: str) -> Iterator[Traced]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **variables}
    options = ("--model-path", str(path), "--grpc-port", str(port), "--drain-seconds", "0.1")
    with support.process(*options, "--model-version", "7", environment=environment) as process:
        made = Traced(process, port)
        yield made
        made.http.close()


@pytest.fixture(scope="module")
def traced(collecting: Collector, churn_file: Path) -> Iterator[Traced]:
    with serving(churn_file, collecting.endpoint, OTEL_BSP_SCHEDULE_DELAY=EXPORT_MILLISECONDS) as made:
        yield made


def test_a_request_s_span_continues_its_client_s_trace(traced: Traced, collector: Collector) -> None:
    assert traced.infer(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=b") == 200
    collector.wait_for(lambda: len(collector.of(TRACE)) == 3)
    spans = collector.of(TRACE)
    span = spans["POST /v2/models/{model}/infer"]
    assert (span.parent_span_id.hex(), span.kind, span.trace_state) == (PARENT, SERVER, "a=b")
    assert {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v2/models/{model}/infer",
        "kedge.rows": 2,
        "url.path": "/v2/models/m/infer",
        "url.scheme": "http",
    }.items() <= values(span).items()
    queue, predict = spans["queue"], spans["predict"]
    assert queue.parent_span_id == predict.parent_span_id == span.span_id
    assert values(predict) == {"kedge.batch.requests": 1, "kedge.batch.rows": 2}
    times = [span.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano]
    times += [predict.start_time_unix_nano, predict.end_time_unix_nano, span.end_time_unix_nano]
    assert times == sorted(times)
    named = {"service.name": "m", "service.version": "7"}
    assert named.items() <= collector.resources[0].items()


def test_a_failed_request_is_an_error_in_its_trace_and_its_log_says_which(traced: Traced, collector: Collector) -> None:
    assert traced.infer("Paris", traceparent=f"00-{TRACE}-{PARENT}-01") == 500
    collector.wait_for(lambda: "POST /v2/models/{model}/infer" in collector.of(TRACE))
    span = collector.of(TRACE)["POST /v2/models/{model}/infer"]
    assert span.status.code == ERROR
    assert {"error.type": "500", "kedge.fault": "server"}.items() <= values(span).items()
    logged = [entry for entry in traced.process.logs() if entry.get("trace_id") == TRACE]
    assert [(entry["message"], entry["span_id"]) for entry in logged] == [
        ("a traced request failed", span.span_id.hex())
    ]


def test_a_client_s_mistake_is_no_error_of_the_server_s(traced: Traced, collector: Collector) -> None:
    parent = f"00-{TRACE}-{PARENT}-01"
    assert traced.http.post("/v2/models/m/infer", content=b"{", headers={"traceparent": parent}).status_code == 400
    collector.wait_for(lambda: bool(collector.of(TRACE)))
    (span,) = collector.of(TRACE).values()
    assert span.status.code != ERROR
    assert values(span)["http.response.status_code"] == 400


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{PARENT}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        "00-" + "x" * 5000,
    ],
)
def test_a_malformed_trace_context_is_ignored(traced: Traced, collector: Collector, traceparent: str) -> None:
    assert traced.infer(traceparent=traceparent) == 200
    collector.wait_for(lambda: len(collector.spans) == 3)
    (root,) = [span for span in collector.spans if span.kind == SERVER]
    assert root.parent_span_id == b""
    assert root.trace_id.hex() != TRACE


def test_what_its_client_does_not_sample_is_not_exported(traced: Traced, collector: Collector) -> None:
    other = TRACE[::-1]
    assert traced.infer(traceparent=f"00-{TRACE}-{PARENT}-00") == 200
    assert traced.infer(traceparent=f"00-{other}-{PARENT}-01") == 200
    collector.wait_for(lambda: len(collector.of(other)) == 3)
    assert collector.of(TRACE) == {}


def test_feedback_and_probes_are_answered_and_not_traced_and_the_last_spans_get_out(
    churn_file: Path, collector: Collector
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    # Only the end of the process can make it export.
    with serving(churn_file, collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="3600000") as traced:
        assert traced.infer() == 200
        feedback = {"id": "request-1", "labels": ["stay", "stay"]}
        answer = traced.http.post("/v2/models/m/feedback", json=feedback, headers=headers)
        assert answer.json()["unmatched"] == 0
        assert traced.http.get("/v2/health/ready", headers=headers).status_code == 200
        assert collector.spans == []
        traced.process.terminate()
        assert traced.process.wait_exit() == 0
    assert {span.name for span in collector.spans} == {"POST /v2/models/{model}/infer", "queue", "predict"}
    assert collector.of(TRACE) == {}


def test_a_grpc_call_s_span_continues_its_client_s_trace(traced: Traced, collector: Collector) -> None:
    request = messages.ModelInferRequest(model_name="m")
    request.inputs.add(name="age", datatype="FP64", shape=[1]).contents.fp64_contents.append(20.0)
    city = request.inputs.add(name="city", datatype="BYTES", shape=[1])
    city.contents.bytes_contents.append(b"Oslo")
    other = TRACE[::-1]
    with grpc.insecure_channel(f"127.0.0.1:{traced.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        infer(request.SerializeToString(), metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        city.contents.bytes_contents[0] = b"Paris"
        with pytest.raises(grpc.RpcError):
            infer(request.SerializeToString(), metadata=[("traceparent", f"00-{other}-{PARENT}-01")])
    name = "inference.GRPCInferenceService/ModelInfer"
    # Spans are exported as they end, each child before its parent, and a batch of them may be sent in between.
    collector.wait_for(lambda: len(collector.of(TRACE)) == 3 and name in collector.of(other))
    spans = collector.of(TRACE)
    assert (spans[name].parent_span_id.hex(), spans[name].kind) == (PARENT, SERVER)
    assert {"rpc.system": "grpc", "rpc.grpc.status_code": 0, "kedge.rows": 1}.items() <= values(spans[name]).items()
    assert spans["predict"].parent_span_id == spans[name].span_id
    failed = collector.of(other)[name]
    assert failed.status.code == ERROR
    assert (values(failed)["rpc.grpc.status_code"], values(failed)["error.type"]) == (13, "INTERNAL")


def test_requests_are_answered_and_the_process_ends_without_a_collector(churn_file: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with serving(churn_file, endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="1") as traced:
            assert [traced.infer() for _ in range(20)] == [200] * 20
            traced.process.terminate()
            assert traced.process.wait_exit() == 0


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "churn"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_spans_are_made_when_a_collector_is_named(environment: dict[str, str], *, wanted: bool) -> None:
    assert tracing.wanted(environment) is wanted


def test_a_protocol_that_is_not_spoken_is_said_so(caplog: pytest.LogCaptureFixture) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert tracing.configure(Settings(model_name="m", model_path=Path("m")), environment) is None
    assert "http/protobuf only" in caplog.text


def test_nothing_of_opentelemetry_is_imported_without_a_collector() -> None:
    assert support.in_fresh_process(_imported) == []


def _imported() -> list[str]:
    settings = Settings(model_name="m", model_path=Path("m"))
    assert tracing.configure(settings, {}) is None
    return [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "kedge_server.spans"))]
