from __future__ import annotations

import dataclasses
import gc
import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.model_server import support
from tests.model_server.support import infer_body, iris_body, tensor

from kedge_server import decoding, predicting, protocol, proving
from kedge_server.settings import Limits

AGES = tensor([20.0, 50.0], name="age")
CITIES = tensor(["Oslo", "Rome"], name="city", datatype="BYTES")


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/m/versions/7/infer"])
async def test_answers_a_request_like_the_model_itself(iris: Any, path: str) -> None:
    async with support.served(iris) as server:
        response = await server.infer(iris_body(rows=120, start=20, id="abc"), path)
        assert response.status_code == 200
        answer = response.json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "7", "abc")
        assert answer["outputs"] == [
            {
                "name": "predict",
                "datatype": "INT64",
                "shape": [120],
                "data": iris.predict(support.IRIS[20:140]).tolist(),
            }
        ]


async def test_gives_the_outputs_asked_for_in_that_order(iris: Any) -> None:
    async with support.served(iris) as server:
        body = iris_body(rows=3, outputs=[{"name": "predict_proba"}, {"name": "predict"}])
        outputs = (await server.infer(body)).json()["outputs"]
        assert [o["name"] for o in outputs] == ["predict_proba", "predict"]
        assert outputs[0]["shape"] == [3, 3]
        expected = iris.predict_proba(support.IRIS[:3])
        assert np.array_equal(np.reshape(outputs[0]["data"], (3, 3)), expected)


async def test_takes_the_method_from_a_request_parameter(iris: Any) -> None:
    async with support.served(iris) as server:
        answer = await server.infer(iris_body(parameters={"method": "decision_function"}))
        assert answer.json()["outputs"][0]["name"] == "decision_function"


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([AGES, CITIES], id="one tensor a feature"),
        pytest.param([CITIES, AGES], id="in any order"),
        pytest.param(
            [tensor([[20.0], [50.0]], name="age"), tensor([["Oslo"], ["Rome"]], name="city", datatype="BYTES")],
            id="as columns of a matrix",
        ),
        pytest.param([tensor([20, 50], name="age", datatype="INT16"), CITIES], id="as whole numbers"),
    ],
)
async def test_a_model_trained_on_a_frame_takes_its_features_by_name(churn: Any, inputs: list[Any]) -> None:
    async with support.served(churn) as server:
        answer = (await server.infer(infer_body(*inputs))).json()
        assert answer["outputs"][0] == {
            "name": "predict",
            "datatype": "BYTES",
            "shape": [2],
            "data": ["stay", "leave"],
        }


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        ([5.1, 3.5, 1.4, 0.2], "FP64"),
        ([[5.1, 3.5, 1.4, 0.2]], "FP32"),
        ([[5, 3, 1, 0]], "INT8"),
        ([5, 3, 1, 0], "UINT64"),
        ([[True, False, True, True]], "BOOL"),
    ],
)
async def test_takes_every_numeric_datatype_flat_and_nested(iris: Any, data: Any, datatype: str) -> None:
    async with support.served(iris) as server:
        response = await server.infer(infer_body(tensor(data, datatype=datatype, shape=[1, 4])))
        assert response.status_code == 200
        assert response.json()["outputs"][0]["data"] == iris.predict(np.reshape(data, (1, 4)).astype(float)).tolist()


async def test_a_regressor_answers_numbers_and_a_multi_output_one_a_matrix() -> None:
    targets = np.column_stack([support.IRIS_LABELS, -support.IRIS_LABELS])
    async with support.served(LinearRegression().fit(support.IRIS, targets)) as server:
        output = (await server.infer(iris_body(rows=2))).json()["outputs"][0]
        assert (output["datatype"], output["shape"]) == ("FP64", [2, 2])


async def test_a_multi_output_classifier_gives_one_probability_tensor_an_output() -> None:
    targets = np.column_stack([support.IRIS_LABELS, support.IRIS_LABELS > 0])
    async with support.served(RandomForestClassifier(3, random_state=0).fit(support.IRIS, targets)) as server:
        outputs = (await server.infer(iris_body(outputs=[{"name": "predict_proba"}]))).json()["outputs"]
        assert [(o["name"], o["shape"]) for o in outputs] == [("predict_proba_0", [1, 3]), ("predict_proba_1", [1, 2])]


@pytest.fixture(scope="module")
def forest() -> Any:
    """Gives two outputs, and so two tensors of probabilities; its signature has seen them."""
    targets = np.column_stack([support.IRIS_LABELS, support.IRIS_LABELS > 0])
    model = support.loaded(RandomForestClassifier(3, random_state=0).fit(support.IRIS, targets))
    outputs = proving.warm_up(predicting.Predictor(model.estimator, model.signature), model.signature)
    return dataclasses.replace(model, signature=dataclasses.replace(model.signature, outputs=outputs))


def asked(*names: str, **parameters: Any) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": parameters} for name in names]


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["predict_proba_1"], ["predict_proba_1"]),
        (["predict_proba_1", "predict", "predict_proba_0"], ["predict_proba_1", "predict", "predict_proba_0"]),
        (["predict", "predict_proba"], ["predict", "predict_proba_0", "predict_proba_1"]),
        (["predict_proba_1", "predict_proba"], ["predict_proba_1", "predict_proba_0"]),
        (["predict", "predict"], ["predict"]),
    ],
)
async def test_gives_the_tensors_asked_for_by_name_and_no_others(forest: Any, names: list[str], given: Any) -> None:
    async with support.served(forest) as server:
        listed = [o["name"] for o in (await server.client.get("/v2/models/m")).json()["outputs"]]
        assert set(names) - set(listed) <= {"predict_proba"}
        outputs = (await server.infer(iris_body(rows=2, outputs=asked(*names)))).json()["outputs"]

    assert [o["name"] for o in outputs] == given
    expected = forest.estimator.predict_proba(support.IRIS[:2])
    for output in outputs:
        if output["name"] != "predict":
            own = expected[int(output["name"][-1])]
            assert (output["shape"], output["data"]) == (list(own.shape), own.ravel().tolist())


async def test_requests_for_other_tensors_of_a_method_get_their_own_in_one_batch(forest: Any) -> None:
    bodies = [iris_body(outputs=asked(name)) for name in ("predict_proba_1", "predict_proba", "predict_proba_0")]
    decoded = [decoding.infer_request(json.dumps(body).encode(), forest.signature) for body in bodies]
    outcomes = predicting.Predictor(forest.estimator, forest.signature).run(decoded)

    assert [[name for name, _ in outcome] for outcome in outcomes if isinstance(outcome, list)] == [
        ["predict_proba_1"],
        ["predict_proba_0", "predict_proba_1"],
        ["predict_proba_0"],
    ]


@pytest.mark.parametrize(
    ("outputs", "binary"),
    [
        (asked("predict", binary_data=True) + asked("predict_proba", binary_data=False), {"predict"}),
        (asked("predict", binary_data=True) + asked("predict_proba"), {"predict"}),
        (asked("predict") + asked("predict_proba", binary_data=True), {"predict_proba_0", "predict_proba_1"}),
        (asked("predict_proba_0", binary_data=True) + asked("predict_proba_1"), {"predict_proba_0"}),
        (asked("predict_proba_1") + asked("predict_proba", binary_data=True), {"predict_proba_0"}),
    ],
)
async def test_exactly_the_outputs_wanted_in_binary_are(forest: Any, outputs: Any, binary: set[str]) -> None:
    async with support.served(forest) as server:
        response = await server.infer(iris_body(outputs=outputs))
        header = json.loads(response.content[: int(response.headers["inference-header-content-length"])])

    assert {o["name"] for o in header["outputs"] if "parameters" in o} == binary
    assert {o["name"] for o in header["outputs"] if "data" not in o} == binary


async def test_a_transformer_without_predict_transforms() -> None:
    async with support.served(StandardScaler().fit(support.IRIS)) as server:
        assert (await server.infer(iris_body())).json()["outputs"][0]["name"] == "transform"


@pytest.mark.parametrize("whole", [True, False], ids=["one tensor", "one tensor a feature"])
async def test_a_model_trained_on_strings_without_names_takes_them_as_x0_x1(*, whole: bool) -> None:
    trained = np.array([["Oslo", "red"], ["Rome", "blue"]], dtype=object)
    async with support.served(OneHotEncoder().fit(trained)) as server:
        if whole:
            body = infer_body(tensor([["Rome", "red"]], datatype="BYTES"))
        else:
            columns = {"x0": ["Rome"], "x1": ["red"]}
            body = infer_body(*(tensor(v, name=name, datatype="BYTES") for name, v in columns.items()))
        output = (await server.infer(body)).json()["outputs"][0]
        assert (output["shape"], output["data"]) == ([1, 4], [0.0, 1.0, 0.0, 1.0])


async def test_a_text_model_takes_strings() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad"], [1, 0])
    async with support.served(model) as server:
        body = infer_body(tensor(["good", "bad", "good"], name="text", datatype="BYTES"))
        assert (await server.infer(body)).json()["outputs"][0]["data"] == [1, 0, 1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", {"name": "kedge-server"}),
        ("/v2/", {"name": "kedge-server"}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/m", {"name": "m", "versions": ["7"]}),
        ("/v2/models/m/versions/7", {"name": "m"}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/7/ready", {"name": "m", "ready": True}),
    ],
)
async def test_answers_the_protocol_s_get_routes(iris: Any, path: str, expected: dict[str, Any]) -> None:
    async with support.served(iris) as server:
        response = await server.client.get(path)
        assert response.status_code == 200
        assert expected.items() <= response.json().items()


async def test_metadata_lists_the_features_of_a_frame_by_name(churn: Any) -> None:
    async with support.served(churn) as server:
        assert (await server.client.get("/v2/models/m")).json()["inputs"] == [
            {"name": "age", "datatype": "FP64", "shape": [-1]},
            {"name": "city", "datatype": "BYTES", "shape": [-1]},
        ]


CLIENT_FAULTS: list[tuple[Any, int, str]] = [
    (b"", 400, "not JSON"),
    (b"{", 400, "not JSON"),
    (b"\xff\xfe", 400, "not JSON"),
    (b"[" * 5000, 400, "not JSON"),
    ([], 400, "object"),
    ({}, 400, "inputs"),
    ({"inputs": []}, 400, "inputs"),
    ({"inputs": [3]}, 400, "inputs[0]"),
    (iris_body(id=3), 400, "id"),
    (iris_body(id="x" * 1000), 400, "id"),
    (iris_body(outputs=[{"name": "cluster"}]), 400, "outputs[0].name"),
    (iris_body(outputs=[{"name": {}}]), 400, "outputs[0].name"),
    (iris_body(outputs={"name": "predict"}), 400, "outputs"),
    (iris_body(parameters=[]), 400, "parameters"),
    (iris_body(parameters={"method": "fit"}), 400, "parameters.method"),
    (infer_body({"datatype": "FP64", "shape": [1, 4], "data": [1, 2, 3, 4]}), 400, "inputs[0].name"),
    (infer_body(tensor([[1, 2, 3, 4]], datatype="FP128")), 400, "datatype"),
    (infer_body(tensor([[1, 2, 3, 4]], datatype="fp64")), 400, "datatype"),
    (infer_body(tensor([["a", "b", "c", "d"]], datatype="BYTES")), 400, "BYTES"),
    (infer_body(tensor([[1, 2, 3]])), 400, "shape [1, 3] must be [n_rows, 4]"),
    (infer_body(tensor([1, 2, 3, 4])), 400, "shape [4] must be [n_rows, 4]"),
    (infer_body(tensor([], shape=[0, 4])), 400, "shape"),
    (infer_body(tensor([1, 2, 3, 4], shape=[-1, 4])), 400, "shape"),
    (infer_body(tensor([1, 2, 3, 4], shape=[True, 4])), 400, "shape"),
    (infer_body(tensor([1, 2, 3, 4], shape=[1 << 40, 4])), 400, "shape"),
    (infer_body(tensor([1, 2, 3], shape=[1, 4])), 400, "data holds 3 values"),
    (infer_body(tensor([[1, 2], [3, 4]], shape=[1, 4])), 400, "not nested"),
    (infer_body(tensor([[1, 2, 3, 4], [5, 6, 7]], shape=[2, 4])), 400, "not nested"),
    (infer_body(tensor([[1, 2, 3, [4]]], shape=[1, 4])), 400, "data[3] is a list"),
    (infer_body(tensor([1, 2, 3, "4"], shape=[1, 4])), 400, "data[3] is a string"),
    (infer_body(tensor([1, 2, 3, {}], shape=[1, 4])), 400, "data[3] is an object"),
    (infer_body(tensor("1234", shape=[1, 4])), 400, "data must be a list"),
    (infer_body(tensor([1, 2, 3, 1.5], shape=[1, 4], datatype="INT32")), 400, "fraction"),
    (infer_body(tensor([1, 2, 3, 300], shape=[1, 4], datatype="UINT8")), 400, "outside UINT8"),
    (infer_body(tensor([1, 2, 3, None], shape=[1, 4], datatype="INT32")), 400, "null"),
    (infer_body(tensor([1, 2, 3, 4], shape=[1, 4], datatype="BOOL")), 400, "whole number"),
    (infer_body(tensor([1, 2, 3, None], shape=[1, 4])), 400, 'feature "x3" lacks a value'),
    (infer_body(tensor([1, 2, 3, 1e300], shape=[1, 4])), 200, ""),
    (infer_body(tensor([1, 2, 3, 10**400], shape=[1, 4])), 400, ""),
    (infer_body(tensor([1.0], name="x0"), tensor([1.0], name="nonsense")), 400, '"nonsense" is not a feature'),
    (infer_body(tensor([1.0], name="x0"), tensor([1.0], name="x0")), 400, "given twice"),
    (infer_body(tensor([1.0], name="x0"), tensor([1.0], name="x1")), 400, 'lack 2 of 4 features: "x2", "x3"'),
    (infer_body(tensor([1.0], name="x0"), tensor([1.0, 2.0], name="x1")), 400, '"x1": 2 rows'),
    (infer_body(tensor([[1.0, 2.0]], name="x0"), tensor([1.0], name="x1")), 400, '"x0": shape [1, 2]'),
]


@pytest.mark.parametrize(("body", "status", "names"), CLIENT_FAULTS)
async def test_a_malformed_request_gets_a_message_that_names_the_field(
    iris: Any, body: Any, status: int, names: str
) -> None:
    async with support.served(iris) as server:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await server.client.post("/v2/models/m/infer", content=content)
        assert response.status_code == status, response.text
        if status == 400:
            assert names in response.json()["error"]
            assert server.counted() == {"none": 0, "client": 1, "server": 0, "overload": 0}


@pytest.mark.parametrize(
    ("method", "path", "status", "names"),
    [
        ("POST", "/v2/models/other/infer", 404, '"other"'),
        ("POST", "/v2/models/m/versions/8/infer", 404, '"8"'),
        ("GET", "/v2/models/other", 404, '"other"'),
        ("GET", "/nothing", 404, "/v2"),
        ("GET", "/v2/models/m/infer", 405, "POST"),
        ("POST", "/v2/models/m", 405, "GET"),
        ("DELETE", "/metrics", 405, "GET"),
    ],
)
async def test_what_is_not_there_is_said_to_be_so(iris: Any, method: str, path: str, status: int, names: str) -> None:
    async with support.served(iris) as server:
        response = await server.client.request(method, path)
        assert response.status_code == status
        assert names in response.json()["error"]


async def test_a_column_of_the_wrong_kind_is_the_client_s_fault(churn: Any) -> None:
    async with support.served(churn) as server:
        for inputs, names in (
            ([tensor(["x", "y"], name="age", datatype="BYTES"), CITIES], '"age"'),
            ([AGES, tensor([1.0, 2.0], name="city")], '"city"'),
            ([tensor([None, 2.0], name="age"), CITIES], '"age" lacks a value'),
        ):
            response = await server.infer(infer_body(*inputs))
            assert response.status_code == 400
            assert names in response.json()["error"]


async def test_a_category_never_seen_in_training_is_the_model_s_fault(churn: Any) -> None:
    async with support.served(churn) as server:
        body = infer_body(AGES, tensor(["Oslo", "Paris"], name="city", datatype="BYTES"))
        response = await server.infer(body)
        assert response.status_code == 500
        assert "unknown categories" in response.json()["error"]
        assert server.counted()["server"] == 1


async def test_limits_are_the_client_s_fault(iris: Any) -> None:
    async with support.served(iris, Limits(max_body_bytes=2000, max_queue_rows=10)) as server:
        for response, names in (
            (await server.infer(iris_body(rows=11)), "11 rows"),
            (await server.infer(iris_body(rows=150)), "2000"),
            (await server.client.post("/v2/models/m/infer", content=_endless(b"x" * 900, 5)), "2000"),
        ):
            assert response.status_code == 413
            assert names in response.json()["error"]
        assert server.counted()["client"] == 3


async def _endless(chunk: bytes, times: int) -> Any:
    for _ in range(times):
        yield chunk


async def test_nothing_is_left_of_a_request_that_the_model_refused(iris: Any) -> None:
    def requests() -> int:
        return sum(isinstance(found, protocol.InferRequest) for found in gc.get_objects())

    async with support.served(iris) as server:
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                assert (await server.infer(infer_body(tensor([[None, 1.0, 1.0, 1.0]])))).status_code == 400
            # The last one may still be in frames of the worker and of the loop.
            assert requests() <= 2
        finally:
            gc.enable()


async def test_a_page_that_is_asked_for_with_too_much_says_so(iris: Any) -> None:
    async with support.served(iris) as server:
        response = await server.client.get("/metrics?" + "&".join(["name[]=x"] * 65))
        assert response.status_code == 400
        assert "64 fields" in response.json()["error"]


async def test_an_encoded_body_is_refused(iris: Any) -> None:
    async with support.served(iris) as server:
        response = await server.client.post("/v2/models/m/infer", content=b"x", headers={"content-encoding": "br"})
        assert response.status_code == 415


async def test_is_not_ready_while_draining_but_goes_on_serving(iris: Any) -> None:
    async with support.served(iris) as server:
        server.plane.draining = True
        for path in ("/v2/health/ready", "/v2/models/m/ready"):
            response = await server.client.get(path)
            assert (response.status_code, response.headers["connection"]) == (503, "close")
        response = await server.infer(iris_body())
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        assert (await server.client.get("/v2/health/live")).status_code == 200


async def test_is_live_but_not_ready_before_the_model_is_loaded(iris: Any) -> None:
    async with support.served(iris) as server:
        server.plane._batcher = None
        assert (await server.client.get("/v2/health/live")).status_code == 200
        assert (await server.client.get("/v2/health/ready")).status_code == 503
        response = await server.infer(iris_body())
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert server.counted()["overload"] == 1


def binary_request(tensors: list[dict[str, Any]], blobs: list[bytes], **fields: Any) -> tuple[bytes, dict[str, str]]:
    header = json.dumps({"inputs": tensors, **fields}).encode()
    return header + b"".join(blobs), {"inference-header-content-length": str(len(header))}


def binary_tensor(
    size: int, datatype: str = "FP64", shape: tuple[int, ...] = (1, 4), name: str = "input"
) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    "datatype", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
)
async def test_takes_and_gives_binary_tensors(iris: Any, datatype: str) -> None:
    rows = np.array([[5, 3, 1, 0], [6, 3, 5, 2]], dtype=protocol.DATATYPES[datatype].newbyteorder("<"))
    content, headers = binary_request(
        [binary_tensor(rows.nbytes, datatype, (2, 4))],
        [rows.tobytes()],
        outputs=[{"name": "predict_proba", "parameters": {"binary_data": True}}, {"name": "predict"}],
    )
    async with support.served(iris) as server:
        response = await server.client.post("/v2/models/m/infer", content=content, headers=headers)
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers["inference-header-content-length"])
        answer = json.loads(response.content[:length])
        assert answer["outputs"][0] == {
            "name": "predict_proba",
            "datatype": "FP64",
            "shape": [2, 3],
            "parameters": {"binary_data_size": 48},
        }
        expected = iris.predict_proba(rows.astype(float))
        assert np.array_equal(np.frombuffer(response.content[length:], "<f8").reshape(2, 3), expected)
        assert answer["outputs"][1]["data"] == iris.predict(rows.astype(float)).tolist()


async def test_takes_and_gives_binary_strings(churn: Any) -> None:
    cities = b"\x04\x00\x00\x00Oslo\x04\x00\x00\x00Rome"
    tensors = [AGES, binary_tensor(len(cities), "BYTES", (2,), "city")]
    content, headers = binary_request(tensors, [cities], parameters={"binary_data_output": True})
    async with support.served(churn) as server:
        response = await server.client.post("/v2/models/m/infer", content=content, headers=headers)
        length = int(response.headers["inference-header-content-length"])
        assert response.content[length:] == b"\x04\x00\x00\x00stay\x05\x00\x00\x00leave"


FOUR = np.arange(4.0).tobytes()


@pytest.mark.parametrize(
    ("tensors", "blob", "names"),
    [
        ([binary_tensor(40)], FOUR, "binary_data_size"),
        ([binary_tensor(-1)], FOUR, "binary_data_size"),
        ([binary_tensor("32")], FOUR, "binary_data_size"),  # type: ignore[arg-type]
        ([binary_tensor(24)], FOUR[:24], "needs 32"),
        ([binary_tensor(32)], FOUR + b"x", "belong to none"),
        ([binary_tensor(32) | {"data": [1, 2, 3, 4]}], FOUR, "both data and"),
        ([binary_tensor(32) | {"parameters": 3}], FOUR, "parameters"),
        ([binary_tensor(4, "BOOL")], b"\x00\x01\x02\x01", "0 or 1"),
        ([binary_tensor(32) | {"shape": [1 << 30, 4]}], FOUR, "needs"),
    ],
)
async def test_a_malformed_binary_tensor_is_the_client_s_fault(
    iris: Any, tensors: list[dict[str, Any]], blob: bytes, names: str
) -> None:
    content, headers = binary_request(tensors, [blob])
    async with support.served(iris) as server:
        response = await server.client.post("/v2/models/m/infer", content=content, headers=headers)
        assert response.status_code == 400
        assert names in response.json()["error"]


@pytest.mark.parametrize(
    "blob",
    [b"\x04\x00", b"\x09\x00\x00\x00Oslo", b"\xff\xff\xff\xff", b"\x01\x00\x00\x00\xff", b"\x01\x00\x00\x00ab"],
)
async def test_malformed_binary_strings_are_the_client_s_fault(churn: Any, blob: bytes) -> None:
    tensors = [tensor([20.0], name="age"), binary_tensor(len(blob), "BYTES", (1,), "city")]
    content, headers = binary_request(tensors, [blob])
    async with support.served(churn) as server:
        assert (await server.client.post("/v2/models/m/infer", content=content, headers=headers)).status_code == 400


@pytest.mark.parametrize("length", ["-1", "x", "99999", "9" * 40])
async def test_a_wrong_header_length_is_the_client_s_fault(iris: Any, length: str) -> None:
    async with support.served(iris) as server:
        headers = {"inference-header-content-length": length}
        response = await server.client.post("/v2/models/m/infer", json=iris_body(), headers=headers)
        assert response.status_code == 400
        assert "Inference-Header-Content-Length" in response.json()["error"]


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_takes_compressed_bodies_up_to_the_limit(iris: Any, coding: str, pack: Any) -> None:
    async with support.served(iris, Limits(max_body_bytes=4000)) as server:
        body = json.dumps(iris_body(rows=2)).encode()
        headers = {"content-encoding": coding}

        async def post(content: bytes) -> int:
            return (await server.client.post("/v2/models/m/infer", content=content, headers=headers)).status_code

        assert await post(pack(body)) == 200
        assert await post(pack(bytes(1_000_000))) == 413
        assert await post(pack(body)[:-9]) == 400
        assert await post(pack(body) + b"x") == 400
        assert await post(b"nonsense") == 400


@pytest.mark.parametrize(
    ("accepted", "compressed"), [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("br", False)]
)
async def test_compresses_large_answers_for_clients_that_take_them(
    iris: Any, accepted: str, *, compressed: bool
) -> None:
    rows = np.tile(support.IRIS, (20, 1))
    async with support.served(iris) as server:
        body = infer_body(tensor(rows.tolist()), outputs=[{"name": "predict_proba"}])
        response = await server.client.post("/v2/models/m/infer", json=body, headers={"accept-encoding": accepted})
        assert (response.headers.get("content-encoding") == "gzip") is compressed
        data = response.json()["outputs"][0]["data"]
        assert np.array_equal(np.reshape(data, (-1, 3)), iris.predict_proba(rows))
