"""What a request may say, and that nothing of it is converted in silence."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from tests.model_server import support
from tests.model_server.support import iris_body, tensor

from kedge_server import bulk, decoding, protocol, signature
from kedge_server.errors import ClientError

IRIS = signature.describe(support.iris_model())
CHURN = signature.describe(support.churn_model())
TEXT = signature.describe(HashingVectorizer())
INTEGERS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]


def refused(body: Any, described: signature.Signature = IRIS, header_length: int | None = None) -> str:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    with pytest.raises(ClientError) as caught:
        decoding.infer_request(content, described, header_length)
    assert caught.value.status == 400
    return caught.value.message


def rows(data: list[Any], datatype: str) -> Any:
    """Returns what becomes of the numbers of one tensor (n_rows, 4)."""
    body = {"inputs": [tensor(data, datatype=datatype, shape=[len(data) // 4, 4])]}
    matrix = decoding.infer_request(orjson.dumps(body), IRIS).rows.matrix
    assert matrix is not None
    assert matrix.dtype == np.float64
    return matrix.ravel().tolist()


def row(data: list[Any], datatype: str) -> dict[str, Any]:
    return {"inputs": [tensor(data, datatype=datatype, shape=[1, 4])]}


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", *INTEGERS])
@pytest.mark.parametrize("data", [[1, 2, 3, True], [False, 0, 0, 0], [True] * 4], ids=["last", "first", "all"])
def test_a_boolean_is_no_number(datatype: str, data: list[Any]) -> None:
    message = refused(row(data, datatype))
    assert '"input": data[' in message
    assert f"is a boolean, which datatype {datatype} does not allow" in message


@pytest.mark.parametrize("data", [[None, True, 1.5, 2.5], [True, "a", 1, 2], [[True, 1.5, 2.5, 0.1]]])
def test_a_boolean_beside_what_else_is_unusual_is_no_number_either(data: list[Any]) -> None:
    assert "data[" in refused(row(data, "FP64"))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", *INTEGERS])
def test_zeros_and_ones_are_numbers(datatype: str) -> None:
    assert rows([0, 1, 1, 0], datatype) == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("number", [2**53, 2**53 + 2, 2**62, 2**63 - 1024, -(2**53), -(2**63)])
def test_a_large_whole_number_that_a_float_has_is_taken(number: int) -> None:
    assert rows([1, number, 3, 4], "INT64") == [1.0, float(number), 3.0, 4.0]


@pytest.mark.parametrize(
    ("number", "datatype"),
    [(2**53 + 1, "INT64"), (-(2**53) - 1, "INT64"), (2**63 - 1, "INT64"), (2**53 + 1, "UINT64"), (2**64 - 1, "UINT64")],
)
@pytest.mark.parametrize("way", ["JSON", "binary", "column"])
def test_a_whole_number_that_a_float_would_round_is_refused(number: int, datatype: str, way: str) -> None:
    if way == "JSON":
        message = refused(row([1, 2, number, 4], datatype))
    elif way == "binary":
        blob = np.array([1, 2, number, 4], dtype=protocol.DATATYPES[datatype]).tobytes()
        head = orjson.dumps({"inputs": [binary(len(blob), datatype)]})
        message = refused(head + blob, header_length=len(head))
    else:
        columns = [tensor([v], name=f"x{i}", datatype=datatype) for i, v in enumerate([1, 2, number, 4])]
        message = refused({"inputs": columns})
    assert f"is {number}, but the model gets numbers as float64" in message
    assert str(int(float(number))) in message


def binary(size: Any, datatype: str = "FP64") -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": "input", "datatype": datatype, "shape": [1, 4], "parameters": parameters}


NUMBERS = [0.1, 5.1, 1e-7, 65504.0]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("times", [1, 200], ids=["few", "many"])
def test_a_float_is_the_same_number_in_json_and_in_binary(datatype: str, times: int) -> None:
    data = NUMBERS * times
    blob = np.array(data, dtype=protocol.DATATYPES[datatype]).tobytes()
    head = orjson.dumps({"inputs": [binary(len(blob), datatype) | {"shape": [times, 4]}]})
    matrix = decoding.infer_request(head + blob, IRIS, len(head)).rows.matrix
    assert matrix is not None

    assert rows(data, datatype) == matrix.ravel().tolist()
    assert np.array_equal(rows([None, *data[1:]], datatype)[1:], matrix.ravel().tolist()[1:])


@pytest.mark.parametrize(("number", "datatype"), [(1e300, "FP32"), (-4e38, "FP32"), (70000, "FP16"), (-1e9, "FP16")])
@pytest.mark.parametrize("times", [1, 200], ids=["few", "many"])
@pytest.mark.parametrize("first", [1.5, None], ids=["whole", "with null"])
def test_a_float_beyond_its_datatype_is_refused(number: float, datatype: str, times: int, first: Any) -> None:
    data = [first, 2.5, 3.5, number] * times
    body = {"inputs": [tensor(data, datatype=datatype, shape=[times, 4])]}
    assert (len(orjson.dumps(body)) >= bulk.MIN_BYTES) is (times > 1)
    assert f'input "input": data holds a number outside {datatype}' in refused(body)


def test_a_whole_number_beyond_64_bits_is_out_of_range_and_has_no_fraction() -> None:
    beyond = json.dumps(row([1, 2, 3, 99999999999999999999], "UINT64")).encode()
    assert refused(beyond).endswith("data holds a number outside UINT64")
    assert "data[3] is a number with a fraction" in refused(row([1, 2, 3, 4.0], "UINT64"))


def test_null_is_no_text() -> None:
    body = {"inputs": [tensor(["good", None], name="text", datatype="BYTES")]}
    assert refused(body, TEXT) == 'input "text": data[1] is null, but must be a string'


@pytest.mark.parametrize("outputs", [{}, "", 0, False, {"name": "predict"}, "predict"])
def test_outputs_must_be_a_list(outputs: Any) -> None:
    assert refused(iris_body(outputs=outputs)).startswith("outputs must be a list")


@pytest.mark.parametrize("parameters", [[], "", 0, False])
def test_parameters_must_be_an_object(parameters: Any) -> None:
    assert refused(iris_body(parameters=parameters)) == "parameters must be an object"
    body = iris_body()
    body["inputs"][0]["parameters"] = parameters
    assert refused(body) == "inputs[0].parameters must be an object"
    assert (
        refused(iris_body(outputs=[{"name": "predict", "parameters": parameters}]))
        == "outputs[0].parameters must be an object"
    )


@pytest.mark.parametrize("fields", [{}, {"outputs": None}, {"outputs": []}, {"parameters": None}, {"parameters": {}}])
def test_nothing_said_is_the_model_s_default(fields: dict[str, Any]) -> None:
    found = decoding.infer_request(orjson.dumps(iris_body(**fields)), IRIS)
    assert (found.methods, found.tensors, found.binary) == (("predict",), (), frozenset())


@pytest.mark.parametrize("value", [1, 0, "true", [], 1.0])
def test_whether_an_output_is_binary_is_a_boolean(value: Any) -> None:
    own = iris_body(outputs=[{"name": "predict", "parameters": {"binary_data": value}}])
    assert refused(own) == "outputs[0].parameters.binary_data must be true or false"
    for outputs in ([], [{"name": "predict"}]):
        everywhere = iris_body(parameters={"binary_data_output": value}, outputs=outputs)
        assert refused(everywhere) == "parameters.binary_data_output must be true or false"


@pytest.mark.parametrize("method", ["nonsense", "", 5, True, None, ["predict"]])
def test_a_method_is_one_of_the_model_s_also_beside_outputs(method: Any) -> None:
    for outputs in ([], [{"name": "predict"}]):
        message = refused(iris_body(parameters={"method": method}, outputs=outputs))
        assert message.startswith("parameters.method")
        assert message.endswith("is not one of predict, predict_proba, decision_function")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({}, "outputs[1] lacks a name, which is one of predict, predict_proba, decision_function"),
        ("predict", 'outputs[1] must be an object such as {"name": "predict"}'),
        (None, 'outputs[1] must be an object such as {"name": "predict"}'),
        ({"name": "predict_1"}, 'outputs[1].name "predict_1" is not one of predict, predict_proba, decision_function'),
        ({"name": 3}, 'outputs[1].name "3" is not one of predict, predict_proba, decision_function'),
    ],
)
def test_an_output_that_is_none_is_told_what_it_could_be(output: Any, message: str) -> None:
    assert refused(iris_body(outputs=[{"name": "predict"}, output])) == message


def test_binary_data_without_the_header_is_told_of_it() -> None:
    needed = "Inference-Header-Content-Length"
    body = {"inputs": [binary(32)]}
    assert f"inputs[0].parameters.binary_data_size needs the header {needed}" in refused(body)
    body["inputs"][0]["data"] = [1, 2, 3, 4]
    assert needed in refused(body)
    assert needed in refused(orjson.dumps({"inputs": [binary(32)]}) + struct.pack("4d", 1, 2, 3, 4))
    assert needed not in refused(b"{")
