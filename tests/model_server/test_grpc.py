"""gRPC counts what REST counts, whatever becomes of a call.

Messages come from Triton's client: the server's own share names with them in protobuf's
one registry, so they live in the server's process only.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.model_server import support
from tritonclient.grpc import service_pb2 as messages  # type: ignore[import-untyped]

MAX_BODY_BYTES = 200_000
MAX_QUEUE_ROWS = 2000
SLOW_ROWS = 2000


def slow_model() -> Any:
    """Knows the cities Oslo and Rome only, and measures the distance of each row to all that it has seen."""
    ages = np.linspace(20.0, 50.0, 3000)
    cities = np.where(ages > 30.0, "Oslo", "Rome").astype(object)
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    neighbours = KNeighborsClassifier(algorithm="brute", p=1.5, n_jobs=1)
    return make_pipeline(columns, neighbours).fit(
        pd.DataFrame({"age": ages, "city": cities}), np.where(ages > 40.0, "stay", "leave")
    )


def message(city: str = "Oslo", rows: int = 1, model: str = "m", features: tuple[str, ...] = ("age", "city")) -> bytes:
    request = messages.ModelInferRequest(model_name=model)
    for name in features:
        datatype = "BYTES" if name == "city" else "FP64"
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[rows])
        if name == "city":
            tensor.contents.bytes_contents.extend([city.encode()] * rows)
        else:
            tensor.contents.fp64_contents.extend([20.0] * rows)
    content: bytes = request.SerializeToString()
    return content


def body(city: str = "Oslo", rows: int = 1, features: tuple[str, ...] = ("age", "city")) -> dict[str, Any]:
    values = {"age": support.tensor([20.0] * rows, name="age")}
    values["city"] = support.tensor([city] * rows, name="city", datatype="BYTES")
    for name in set(features) - values.keys():
        values[name] = support.tensor([20.0] * rows, name=name)
    return support.infer_body(*(values[name] for name in features))


class Server:
    """A server's two ports."""

    def __init__(self, process: support.Process, port: int) -> None:
        self.http = httpx.Client(base_url=process.url, timeout=60)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.infer = self.call("ModelInfer")

    def call(self, method: str) -> Any:
        """Returns what sends bytes to a method."""
        return self._channel.unary_unary(f"/inference.GRPCInferenceService/{method}")

    def close(self) -> None:
        self.http.close()
        self._channel.close()

    def counts(self) -> dict[str, int]:
        """Returns requests by fault, and how many are in the latency histogram."""
        page = self.http.get("/metrics").text
        samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        timed = int(samples['kedge_server_request_duration_seconds_count{model="m"}'])
        return {**support.faults(page), "timed": timed}

    def counted(self, act: Callable[[], object]) -> dict[str, int]:
        """Returns by how much the counts have risen once `act` is done."""
        before = self.counts()
        act()
        after = self.counts()
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}

    def waiting_rows(self) -> int:
        page = self.http.get("/metrics", params={"name[]": "kedge_server_queue_rows"}).text
        return int(page.split()[-1])

    def code(self, content: bytes) -> str:
        """Returns the name of the status that a call ends with."""
        try:
            self.infer(content, timeout=60)
        except grpc.RpcError as exc:
            return str(exc.code().name)
        return "OK"


@contextlib.contextmanager
def serving(model: Any, folder: Path, *options: str) -> Iterator[Server]:
    skops.io.dump(model, folder / "model.skops")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ("--model-path", str(folder / "model.skops"), "--grpc-port", str(port), *options)
    with support.process(*arguments) as process:
        made = Server(process, port)
        yield made
        made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ("--max-body-bytes", str(MAX_BODY_BYTES), "--max-queue-rows", str(MAX_QUEUE_ROWS))
    with serving(slow_model(), tmp_path_factory.mktemp("model"), *limits) as made:
        yield made


def test_sigterm_under_load_loses_no_call(iris_file: Path) -> None:
    request = messages.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP64", shape=[1, 4]).contents.fp64_contents.extend([5.0] * 4)
    content = request.SerializeToString()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    answered, lost = itertools.count(), []

    def call_again_and_again() -> None:
        # Each its own connection.
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            while True:
                try:
                    infer(content, timeout=20)
                except grpc.RpcError as exc:
                    if "failed to connect" not in exc.details():
                        lost.append(exc.details())
                    return
                next(answered)

    options = ("--max-connection-age-seconds", "1", "--drain-seconds", "0.5", "--grpc-port", str(port))
    with support.process("--model-path", str(iris_file), *options) as process:
        clients = [threading.Thread(target=call_again_and_again) for _ in range(8)]
        for client in clients:
            client.start()
        support.wait_until(lambda: next(answered) > 50)
        process.terminate()
        assert process.wait_exit() == 0
        for client in clients:
            client.join()
    assert lost == []


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata"])
def test_a_message_that_cannot_be_read_is_the_client_s_fault(server: Server, method: str) -> None:
    call = server.call(method)
    with pytest.raises(grpc.RpcError) as refused:
        call(b"\xff\xff\xff", timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == f"the message is not a {method}Request"


LARGE = "x" * (MAX_BODY_BYTES + 1)


@pytest.mark.parametrize(
    ("content", "document", "statuses", "counted"),
    [
        (message(), body(), ("OK", 200), {"none": 1, "timed": 1}),
        (message("Paris"), body("Paris"), ("INTERNAL", 500), {"server": 1}),
        (message(features=("age",)), body(features=("age",)), ("INVALID_ARGUMENT", 400), {"client": 1}),
        (message(features=("age", "x")), body(features=("age", "x")), ("INVALID_ARGUMENT", 400), {"client": 1}),
        (b"\xff\xff\xff", b"{", ("INVALID_ARGUMENT", 400), {"client": 1}),
        (message(LARGE), body(LARGE), ("RESOURCE_EXHAUSTED", 413), {"client": 1}),
        (
            message(rows=MAX_QUEUE_ROWS + 1),
            body(rows=MAX_QUEUE_ROWS + 1),
            ("RESOURCE_EXHAUSTED", 413),
            {"client": 1},
        ),
    ],
    ids=["answered", "model raises", "feature missing", "feature unknown", "no message", "too large", "too many rows"],
)
def test_a_call_counts_as_the_same_request_over_rest(
    server: Server, content: bytes, document: Any, statuses: tuple[str, int], counted: dict[str, int]
) -> None:
    seen: list[object] = []
    sent = {"content": document} if isinstance(document, bytes) else {"json": document}
    assert server.counted(lambda: seen.append(server.code(content))) == counted
    path = "/v2/models/m/infer"
    assert server.counted(lambda: seen.append(server.http.post(path, **sent).status_code)) == counted
    assert tuple(seen) == statuses


def test_another_model_s_name_counts_as_the_client_s_fault(server: Server) -> None:
    assert server.counted(lambda: server.code(message(model="other"))) == {"client": 1}
    assert server.counted(lambda: server.http.post("/v2/models/other/infer", json=body())) == {"client": 1}


def test_a_refusal_for_lack_of_room_counts_as_overload_and_says_when_to_come_back(server: Server) -> None:
    refused: list[Any] = []

    def crowd() -> bool:
        calls = [server.infer.future(message(rows=SLOW_ROWS), timeout=60) for _ in range(6)]
        refused.extend(call for call in calls if call.exception() is not None)
        return bool(refused)

    counted = server.counted(lambda: support.wait_until(crowd))
    assert counted["overload"] == len(refused)
    assert counted["none"] == counted["timed"]
    assert set(counted) == {"overload", "none", "timed"}
    for call in refused:
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert int(dict(call.trailing_metadata())["retry-after"]) >= 1


def test_a_call_whose_client_gave_up_counts_with_the_answer_that_it_would_have_had(server: Server) -> None:
    def give_up() -> None:
        before = server.counts()["server"]

        def answered() -> bool:
            return server.counts()["server"] > before

        busy = server.infer.future(message(rows=SLOW_ROWS), timeout=60)
        behind = server.infer.future(message("Paris"), timeout=60)
        support.wait_until(lambda: server.waiting_rows() == 1 or answered())
        behind.cancel()
        support.wait_until(answered)
        busy.result()

    assert server.counted(give_up) == {"none": 1, "timed": 1, "server": 1}


def test_answers_and_errors_name_the_version_that_gave_them(server: Server) -> None:
    _, call = server.infer.with_call(message(), timeout=60)
    assert ("kedge-model-version", "1") in call.trailing_metadata()
    with pytest.raises(grpc.RpcError) as caught:
        server.infer(message("Paris"), timeout=60)
    assert ("kedge-model-version", "1") in caught.value.trailing_metadata()


def test_answers_are_the_model_s_own(server: Server) -> None:
    answer = messages.ModelInferResponse.FromString(server.infer(message(), timeout=60))
    expected = slow_model().predict(pd.DataFrame({"age": [20.0], "city": ["Oslo"]}))
    assert np.array_equal([value.decode() for value in answer.outputs[0].contents.bytes_contents], expected)


def many_model() -> Any:
    """Four numbers in, two classes out, which are half floats as some pipelines keep them."""
    targets = np.column_stack([support.IRIS_LABELS > 0, support.IRIS_LABELS > 1]).astype(np.float16)
    return MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(support.IRIS, targets)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(many_model(), tmp_path_factory.mktemp("model")) as made:
        yield made


def iris_message(*outputs: str, datatype: str = "FP64", method: dict[str, Any] | None = None, **contents: Any) -> bytes:
    request = messages.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="input", datatype=datatype, shape=[1, 4])
    for field, values in (contents or {"fp64_contents": support.IRIS[0].tolist()}).items():
        getattr(tensor.contents, field).extend(values)
    for name in outputs:
        request.outputs.add(name=name)
    for field, value in (method or {}).items():
        setattr(request.parameters["method"], field, value)
    content: bytes = request.SerializeToString()
    return content


def answered(server: Server, content: bytes) -> Any:
    return messages.ModelInferResponse.FromString(server.infer(content, timeout=60))


def refused(server: Server, content: bytes) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        server.infer(content, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


def test_gives_the_tensors_asked_for_by_name_and_no_others(many: Server) -> None:
    answer = answered(many, iris_message("predict_proba_1", "predict_proba_0"))
    expected = many_model().predict_proba(support.IRIS[:1])
    assert [o.name for o in answer.outputs] == ["predict_proba_1", "predict_proba_0"]
    assert [list(o.contents.fp64_contents) for o in answer.outputs] == [p.ravel().tolist() for p in expected[::-1]]


def test_when_one_output_can_only_be_raw_all_are(many: Server) -> None:
    answer = answered(many, iris_message("predict_proba_0", "predict"))
    assert [(o.name, o.datatype, o.HasField("contents")) for o in answer.outputs] == [
        ("predict_proba_0", "FP64", False),
        ("predict", "FP16", False),
    ]
    model = many_model()
    expected = [model.predict_proba(support.IRIS[:1])[0], model.predict(support.IRIS[:1])]
    assert list(answer.raw_output_contents) == [array.tobytes() for array in expected]


@pytest.mark.parametrize(
    "value",
    [{"int64_param": 5}, {"bool_param": True}, {"string_param": ""}, {"string_param": "fit"}],
    ids=["number", "boolean", "empty", "unknown"],
)
def test_a_method_that_is_none_of_the_model_s_is_refused(many: Server, value: dict[str, Any]) -> None:
    for outputs in ((), ("predict",)):
        assert refused(many, iris_message(*outputs, method=value)).startswith("parameters.method")


def test_takes_the_method_from_a_request_parameter(many: Server) -> None:
    answer = answered(many, iris_message(method={"string_param": "predict_proba"}))
    assert [o.name for o in answer.outputs] == ["predict_proba_0", "predict_proba_1"]


@pytest.mark.parametrize(
    ("datatype", "contents", "said"),
    [
        ("FP64", {"fp32_contents": [1.0] * 4}, "fp32_contents is filled, but FP64 belongs into contents.fp64_contents"),
        (
            "INT32",
            {"int64_contents": [1] * 4},
            "int64_contents is filled, but INT32 belongs into contents.int_contents",
        ),
        (
            "FP64",
            {"fp64_contents": [1.0] * 4, "int_contents": [1]},
            "int_contents is filled, but FP64 belongs into contents.fp64_contents",
        ),
        ("FP16", {"fp32_contents": [1.0] * 4}, "FP16 is taken in raw_input_contents only"),
        ("FP65", {"fp64_contents": [1.0] * 4}, 'datatype "FP65" is not one of'),
        ("INT8", {"int_contents": [1, 2, 3, 300]}, "a number outside INT8"),
    ],
)
def test_values_in_another_place_than_their_datatype_s_are_refused(
    many: Server, datatype: str, contents: dict[str, Any], said: str
) -> None:
    assert said in refused(many, iris_message(datatype=datatype, **contents))
