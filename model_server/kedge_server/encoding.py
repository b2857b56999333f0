"""Turns results into answers of the Open Inference Protocol. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from kedge_server import protocol

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def infer_response(
    model_name: str, model_version: str, request_id: str | None, outputs: Sequence[protocol.Output]
) -> bytes:
    """Returns the JSON body of a successful infer answer; tensors are flat, row-major."""
    answer: dict[str, Any] = {"model_name": model_name, "model_version": model_version}
    if request_id is not None:
        answer["id"] = request_id
    answer["outputs"] = [_tensor(name, array) for name, array in outputs]
    return orjson.dumps(answer, option=_OPTIONS)


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
