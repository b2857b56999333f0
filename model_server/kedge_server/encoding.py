"""Turns results into answers of the Open Inference Protocol. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from kedge_server import protocol

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def infer_response(
    model_name: str, model_version: str, request: protocol.InferRequest, outputs: Sequence[protocol.Output]
) -> tuple[bytes, int | None]:
    """Returns the body of a successful infer answer; tensors are flat, row-major.

    The second value is how many bytes are JSON when binary tensors follow, else None.
    """
    answer: dict[str, Any] = {"model_name": model_name, "model_version": model_version}
    if request.id is not None:
        answer["id"] = request.id
    if not request.binary:
        answer["outputs"] = [_tensor(name, array) for name, array in outputs]
        return orjson.dumps(answer, option=_OPTIONS), None
    blobs: list[bytes] = []
    tensors: list[dict[str, Any]] = []
    for name, array in outputs:
        if request.in_binary(name):
            blob = binary(array)
            blobs.append(blob)
            tensors.append(
                {
                    "name": name,
                    "datatype": protocol.datatype_of(array),
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": len(blob)},
                }
            )
        else:
            tensors.append(_tensor(name, array))
    answer["outputs"] = tensors
    header = orjson.dumps(answer, option=_OPTIONS)
    return b"".join((header, *blobs)), len(header)


def binary(array: protocol.Array) -> bytes:
    """Returns a tensor's data in little-endian order; strings have their length before them."""
    if protocol.datatype_of(array) != "BYTES":
        return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [str(value).encode() for value in array.reshape(-1).tolist()]
    return b"".join(part for text in encoded for part in (len(text).to_bytes(4, "little"), text))


def _tensor(name: str, array: protocol.Array) -> dict[str, Any]:
    datatype = protocol.datatype_of(array)
    flat = array.reshape(-1)
    data: Any
    if datatype == "BYTES":
        data = [str(value) for value in flat.tolist()]
    elif len(flat) < 16 or flat.dtype == np.float16:
        # A few numbers are quicker as a list than through orjson's look at the array.
        data = flat.tolist()
    else:
        data = np.ascontiguousarray(flat)
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}


def error(message: str) -> bytes:
    """Returns the JSON body of a failed request."""
    return orjson.dumps({"error": message})


def to_json(document: Any) -> bytes:
    """Returns any other document as JSON."""
    return orjson.dumps(document)
