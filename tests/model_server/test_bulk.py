"""The short way through simdjson must not differ from the general decoder, whatever comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from tests.model_server import support

from kedge_server import bulk, decoding, signature
from kedge_server.errors import ClientError

SIGNATURE = signature.describe(support.iris_model())
ROWS = np.random.default_rng(0).normal(size=(150, 4))


def body(**changes: Any) -> bytes:
    """Returns an infer request for the iris model that is large enough; `fields` go beside its inputs."""
    fields = changes.pop("fields", {})
    tensor = {"name": "x", "datatype": "FP64", "shape": [150, 4], "data": ROWS.ravel().tolist()} | changes
    return orjson.dumps({"inputs": [tensor], **fields})


def decoded(content: bytes) -> Any:
    try:
        found = decoding.infer_request(content, SIGNATURE)
    except ClientError as exc:
        return exc.message
    assert found.rows.matrix is not None
    # As bytes, since NaN is unequal to itself.
    return found.id, found.methods, found.tensors, found.binary, found.rows.matrix.dtype, found.rows.matrix.tobytes()


NUMBERS = ROWS.ravel().tolist()
BODIES = {
    "flat": body(),
    "with all that a request may have": body(
        datatype="FP32", fields={"id": "a", "outputs": [{"name": "predict_proba"}], "parameters": {"x": [1]}}
    ),
    "whole numbers": body(data=list(range(600))),
    "large whole numbers": body(data=[2**64 - 1, -(2**63), *NUMBERS[2:]]),
    "nested": body(data=ROWS.tolist()),
    "nested, with whole numbers": body(data=np.arange(600).reshape(150, 4).tolist()),
    "nested otherwise than the shape says": body(data=ROWS.reshape(300, 2).tolist()),
    "a row too short and one too long": body(data=[ROWS[0, :3].tolist(), *ROWS[1:-1].tolist(), [*NUMBERS[:5]]]),
    "a row that is a number": body(data=[NUMBERS[:5], *ROWS[1:-1].tolist(), 1.0]),
    "a row that is an object": body(data=[*ROWS[:-1].tolist(), {"a": 1.0}]),
    "nested twice": body(data=[ROWS.tolist()]),
    "nested, in three dimensions": body(shape=[150, 4, 1], data=ROWS[..., None].tolist()),
    "nested in rows of no number": body(shape=[900, 1], data=[[]] * 900),
    "a row in a row and a number instead of another": body(
        data=[[*NUMBERS[:3], NUMBERS[:4]], *ROWS[2:].tolist(), 1.0]
    ),
    "one value nested": body(data=[*NUMBERS[:-1], NUMBERS[-1:]]),
    "a missing value": body(data=[None, *NUMBERS[1:]]),
    "a string": body(data=["1", *NUMBERS[1:]]),
    "numbers that a float32 does not have": body(datatype="FP32", data=[0.1, 1e-40, *NUMBERS[2:]]),
    "a number beyond float32": body(datatype="FP32", data=[1e39, *NUMBERS[1:]]),
    "true": body(data=[True, *NUMBERS[1:]]),
    "whole numbers as integers": body(datatype="INT64", data=list(range(600))),
    "another datatype": body(datatype="FP65"),
    "a wrong shape": body(shape=[149, 4]),
    "no shape": body(shape=None),
    "no method of that name": body(fields={"outputs": [{"name": "nonsense"}]}),
    "two tensors": orjson.dumps({"inputs": [orjson.loads(body())["inputs"][0]] * 2}),
    "a key twice": body()[:-1] + b',"id":"a","id":"b"}',
    "a number beyond float64": body().replace(b"[150,4]", b"[150,4],\"parameters\":1e400"),
    "cut off": body()[:-1],
    "more after it": body() + b"x",
    "not text": body()[:-1] + b',"id":"\xff"}',
    "data that is no list": body(data="x" * 3000),
    "inputs that are no list": orjson.dumps({"inputs": "x" * 3000}),
    "no inputs": orjson.dumps({"outputs": "x" * 3000}),
    "no object": b"[" + b"1," * 2000 + b"1]",
    "deep": b"[" * 3000 + b"]" * 3000,
}  # fmt: skip


@pytest.mark.parametrize("content", BODIES.values(), ids=BODIES.keys())
def test_a_large_request_is_read_as_a_small_one_is(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(content) >= bulk.MIN_BYTES
    short = decoded(content)
    monkeypatch.setattr(bulk, "MIN_BYTES", len(content) + 1)

    assert short == decoded(content)


@pytest.mark.parametrize("name", ["flat", "nested", "with all that a request may have", "whole numbers"])
def test_a_plain_large_request_is_read_without_an_object_for_each_number(name: str) -> None:
    content = BODIES[name].replace(b',"parameters":{"x":[1]}', b"")
    found = bulk.document(content)

    assert found is not None
    assert isinstance(found["inputs"][0]["data"], np.ndarray)
