"""No body makes a fault of the server's: whatever comes in, a 4xx or an answer goes out."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.model_server import support

from kedge_server import decoding, errors, protocol, signature

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["predict", "x0", "age", "city", "FP64", "BYTES", "INT8", "Oslo"]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.text(max_size=4), st.sampled_from(["inputs", "data", "shape", "datatype", "name"])),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
ODD = st.one_of(JSON, st.lists(st.integers(-2, 5), max_size=4))


def field(*good: Any) -> st.SearchStrategy[Any]:
    """Mostly right, so that the fault lies deep."""
    return st.one_of(st.sampled_from(good), st.sampled_from(good), st.sampled_from(good), ODD)


TENSORS = st.fixed_dictionaries(
    {
        "name": field("input", "x0", "x1", "age", "city"),
        "datatype": field(*protocol.DATATYPES),
        "shape": field([1, 4], [2, 2], [4], [1], [2, 1]),
        "data": field([1, 2, 3, 4], [[1, 2], [3, 4]], [0.5], ["Oslo"], [None, 1], [True]),
    }
)
BODIES = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"inputs": st.one_of(st.lists(TENSORS, max_size=4), JSON)},
        optional={"id": ODD, "outputs": field([{"name": "predict"}]), "parameters": field({"method": "predict"})},
    ),
)


@pytest.fixture(scope="module", params=["iris", "churn"])
def described(request: pytest.FixtureRequest) -> signature.Signature:
    return signature.describe(request.getfixturevalue(request.param))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES)
def test_any_document_is_rows_or_a_client_error(described: signature.Signature, body: Any) -> None:
    try:
        content = orjson.dumps(body)
    except TypeError:
        content = json.dumps(body).encode()
    with contextlib.suppress(errors.ClientError):
        assert decoding.infer_request(content, described).rows.count >= 1


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_client_error(described: signature.Signature, content: bytes) -> None:
    with pytest.raises(errors.ClientError):
        decoding.infer_request(content, described)


async def test_any_damage_to_a_good_request_is_answered_below_500(iris: Any) -> None:
    dice = random.Random(20261124)
    good = orjson.dumps(support.iris_body(rows=2, id="a", outputs=[{"name": "predict_proba"}]))
    async with support.served(iris) as server:
        for _ in range(400):
            damaged = bytearray(good)
            for _ in range(dice.randint(1, 3)):
                place = dice.randrange(len(damaged))
                damaged[place : place + dice.randint(0, 3)] = dice.choice(
                    [b"", b'"', b"9", b"[", b"}", b"null", b"\x00"]
                )
            response = await server.client.post("/v2/models/m/infer", content=bytes(damaged))
            assert response.status_code < 500, damaged
        assert server.counted()["server"] == 0
