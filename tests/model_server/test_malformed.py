"""No body makes a fault of the server's: whatever comes in, a 4xx or an answer goes out."""

from __future__ import annotations

import contextlib
import gc
import json
import random
import tracemalloc
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


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES)
def test_any_document_is_rows_or_a_client_error(described: signature.Signature, body: Any) -> None:
    try:
        content = orjson.dumps(body)
    except TypeError:
        content = json.dumps(body).encode()
    with contextlib.suppress(errors.ClientError):
        assert decoding.infer_request(content, described).rows.count >= 1


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_client_error(described: signature.Signature, content: bytes) -> None:
    with pytest.raises(errors.ClientError):
        decoding.infer_request(content, described)


def damaged(good: bytes, dice: random.Random) -> bytes:
    content = bytearray(good)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(content))
        content[place : place + dice.randint(0, 3)] = dice.choice([b"", b'"', b"9", b"[", b"}", b"null", b"\x00"])
    return bytes(content)


def test_ten_thousand_damaged_requests_leave_nothing_behind(described: signature.Signature) -> None:
    dice = random.Random(1124)
    good = orjson.dumps(support.iris_body(rows=2, id="a", outputs=[{"name": "predict_proba"}]))

    def ask(times: int) -> int:
        for _ in range(times):
            with contextlib.suppress(errors.ClientError):
                decoding.infer_request(damaged(good, dice), described)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = ask(1000)
        assert ask(10_000) - before < 50_000
    finally:
        tracemalloc.stop()


async def test_any_damage_to_a_good_request_is_answered_below_500(iris: Any) -> None:
    dice = random.Random(20261124)
    good = orjson.dumps(support.iris_body(rows=2, id="a", outputs=[{"name": "predict_proba"}]))
    async with support.served(iris) as server:
        for _ in range(400):
            content = damaged(good, dice)
            response = await server.client.post("/v2/models/m/infer", content=content)
            assert response.status_code < 500, content
        assert server.counted()["server"] == 0


@settings(max_examples=150, deadline=None)
@given(
    header=TENSORS,
    size=st.one_of(st.integers(-2, 40), ODD),
    blob=st.binary(max_size=40),
    length=st.one_of(st.none(), st.integers(-5, 400)),
)
def test_any_binary_request_is_rows_or_a_client_error(
    described: signature.Signature, header: dict[str, Any], size: Any, blob: bytes, length: int | None
) -> None:
    try:
        content = orjson.dumps({"inputs": [header | {"parameters": {"binary_data_size": size}}]})
    except TypeError:
        return
    with contextlib.suppress(errors.ClientError):
        end = len(content) if length is None else length
        assert decoding.infer_request(content + blob, described, end).rows.count >= 1
