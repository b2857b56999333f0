"""Clients that others wrote, against a real server.

They share names in protobuf's one registry, so each runs where the server does not.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skops.io
import tritonclient.grpc as triton_grpc  # type: ignore[import-untyped]
import tritonclient.http as triton_http  # type: ignore[import-untyped]
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.types import InferenceRequest
from tests.model_server import support
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

ROWS = support.IRIS[::10]


class Ports:
    """A server and where its gRPC is."""

    def __init__(self, server: support.Process, grpc: int) -> None:
        self.server = server
        self.http = f"127.0.0.1:{server.port}"
        self.grpc = f"127.0.0.1:{grpc}"


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Ports]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with support.process("--model-path", str(path), "--grpc-port", str(port), "--drain-seconds", "0.5") as server:
        yield Ports(server, port)


@pytest.fixture(scope="module")
def iris_ports(iris_file: Path) -> Iterator[Ports]:
    with serving(iris_file) as ports:
        yield ports


@pytest.fixture(scope="module")
def churn_ports(churn: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    path = tmp_path_factory.mktemp("model") / "churn.skops"
    skops.io.dump(churn, path)
    with serving(path) as ports:
        yield ports


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, iris_ports: Ports) -> Iterator[Any]:
    module = {"http": triton_http, "grpc": triton_grpc}[request.param]
    client = module.InferenceServerClient(getattr(iris_ports, request.param))
    client.module = module
    yield client
    client.close()


def test_triton_s_client_finds_server_and_model(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("m")
    assert triton.is_model_ready("m", "1")
    metadata = triton.get_model_metadata("m", **({"as_json": True} if triton.module is triton_grpc else {}))
    assert metadata["name"] == "m"
    assert metadata["inputs"][0]["datatype"] == "FP64"
    server = triton.get_server_metadata(**({"as_json": True} if triton.module is triton_grpc else {}))
    assert "binary_tensor_data" in server["extensions"]


@pytest.mark.parametrize("dtype", ["FP64", "FP32", "FP16"])
def test_triton_s_client_infers_with_binary_tensors(triton: Any, iris: Any, dtype: str) -> None:
    rows = ROWS.astype({"FP64": np.float64, "FP32": np.float32, "FP16": np.float16}[dtype])
    tensor = triton.module.InferInput("input", list(rows.shape), dtype)
    tensor.set_data_from_numpy(rows)
    outputs = [triton.module.InferRequestedOutput(name) for name in ("predict", "predict_proba")]
    result = triton.infer("m", [tensor], request_id="r1", outputs=outputs)
    assert np.array_equal(result.as_numpy("predict"), iris.predict(rows.astype(float)))
    assert np.array_equal(result.as_numpy("predict_proba"), iris.predict_proba(rows.astype(float)))


def test_triton_s_client_infers_with_json(iris_ports: Ports, iris: Any) -> None:
    client = triton_http.InferenceServerClient(iris_ports.http)
    tensor = triton_http.InferInput("input", list(ROWS.shape), "FP64")
    tensor.set_data_from_numpy(ROWS, binary_data=False)
    output = triton_http.InferRequestedOutput("predict_proba", binary_data=False)
    result = client.infer("m", [tensor], outputs=[output])
    assert np.array_equal(result.as_numpy("predict_proba"), iris.predict_proba(ROWS))
    client.close()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_s_client_infers_compressed(iris_ports: Ports, iris: Any, algorithm: str) -> None:
    client = triton_http.InferenceServerClient(iris_ports.http)
    rows = np.tile(support.IRIS, (30, 1))
    tensor = triton_http.InferInput("input", list(rows.shape), "FP64")
    tensor.set_data_from_numpy(rows)
    output = triton_http.InferRequestedOutput("predict_proba")
    result = client.infer(
        "m",
        [tensor],
        outputs=[output],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(result.as_numpy("predict_proba"), iris.predict_proba(rows))
    client.close()


@pytest.mark.parametrize("module", [triton_http, triton_grpc], ids=["http", "grpc"])
def test_triton_s_client_sends_strings_by_feature(churn_ports: Ports, module: Any) -> None:
    client = module.InferenceServerClient(churn_ports.http if module is triton_http else churn_ports.grpc)
    age = module.InferInput("age", [2], "FP32")
    age.set_data_from_numpy(np.array([20.0, 50.0], dtype=np.float32))
    city = module.InferInput("city", [2], "BYTES")
    city.set_data_from_numpy(np.array(["Oslo", "Rome"], dtype=object))
    result = client.infer("m", [age, city])
    assert result.as_numpy("predict").tolist() in (["stay", "leave"], [b"stay", b"leave"])
    client.close()


@pytest.mark.parametrize(
    ("model", "name", "shape", "names"),
    [("other", "input", [1, 4], '"other"'), ("m", "input", [1, 3], "[n_rows, 4]"), ("m", "x0", [1, 1], "lack")],
)
def test_triton_s_client_is_told_its_mistakes(triton: Any, model: str, name: str, shape: list[int], names: str) -> None:
    tensor = triton.module.InferInput(name, shape, "FP64")
    tensor.set_data_from_numpy(np.zeros(shape))
    with pytest.raises(InferenceServerException) as caught:
        triton.infer(model, [tensor])
    assert names in caught.value.message()
    assert caught.value.status() in {"400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"}


def test_a_category_never_seen_is_internal_over_grpc(churn_ports: Ports) -> None:
    client = triton_grpc.InferenceServerClient(churn_ports.grpc)
    age = triton_grpc.InferInput("age", [1], "FP64")
    age.set_data_from_numpy(np.array([20.0]))
    city = triton_grpc.InferInput("city", [1], "BYTES")
    city.set_data_from_numpy(np.array(["Paris"], dtype=object))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("m", [age, city])
    assert caught.value.status() == "StatusCode.INTERNAL"
    client.close()


def test_the_open_inference_client_infers(iris_ports: Ports, iris: Any) -> None:
    with httpx.Client() as transport:
        client = OpenInferenceClient(base_url=f"http://{iris_ports.http}", httpx_client=transport)
        client.check_server_liveness()
        client.check_server_readiness()
        client.check_model_readiness("m")
        client.check_model_version_readiness("m", "1")
        assert client.read_model_metadata("m").name == "m"
        assert client.read_server_metadata().name == "kedge-server"
        request = InferenceRequest.parse_obj({"id": "a", "inputs": [support.tensor(ROWS.tolist())]})
        answer = client.model_infer("m", request=request)
        assert answer.id == "a"
        assert json.loads(answer.outputs[0].data.json()) == iris.predict(ROWS).tolist()


def test_grpc_says_unready_and_ends_when_it_drains(iris_file: Path) -> None:
    with serving(iris_file) as ports:
        client = triton_grpc.InferenceServerClient(ports.grpc)
        tensor = triton_grpc.InferInput("input", [1, 4], "FP64")
        tensor.set_data_from_numpy(ROWS[:1])
        ports.server.terminate()
        support.wait_until(lambda: not client.is_server_ready())
        assert client.infer("m", [tensor]).as_numpy("predict").tolist() == [0]
        assert ports.server.wait_exit() == 0
        client.close()
