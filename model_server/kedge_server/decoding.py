"""Turns bodies of infer requests into rows, or says what is wrong with them. Pure.

Every fault found here is the client's; each message names the field. Whatever bytes
come in, nothing but `ClientError` goes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from kedge_server import bulk, protocol, tensors
from kedge_server.errors import ClientError, quoted
from kedge_server.signature import Column, Kind, Layout, Signature

_HEADER = "Inference-Header-Content-Length"
_NO_BINARY: frozenset[str] = frozenset()
_MAX_ID_CHARS = 256
_MAX_DIMENSIONS = 8
_MAX_SIZE = 1 << 31


def infer_request(body: bytes, signature: Signature, header_length: int | None = None) -> protocol.InferRequest:
    """Decodes a body against what the model takes.

    Args:
        body: JSON, or JSON followed by the data of its binary tensors.
        signature: What the model takes.
        header_length: How many bytes are JSON when binary tensors follow.

    Raises:
        ClientError: The body is not a valid infer request for this model.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise ClientError(f"{_HEADER} is {header_length}, but the body has {len(body)} bytes")
    if header_length is None and len(body) >= bulk.MIN_BYTES and (plain := bulk.document(body)) is not None:
        return infer_document(plain, signature)
    try:
        document = orjson.loads(body if header_length is None else memoryview(body)[:header_length])
    except orjson.JSONDecodeError as exc:
        raise ClientError(f"the body is not JSON: {exc}{_forgotten_header(body, header_length)}") from exc
    if not isinstance(document, dict):
        raise ClientError("the body must be a JSON object")
    if header_length is not None and isinstance(document.get("inputs"), list):
        _attach_binary(document["inputs"], memoryview(body)[header_length:])
    return infer_document(document, signature)


def _forgotten_header(body: bytes, header_length: int | None) -> str:
    if header_length is not None or b'"binary_data_size"' not in body:
        return ""
    return f"; where binary data follows the JSON, the header {_HEADER} must say how many bytes are JSON"


def infer_document(document: dict[str, Any], signature: Signature) -> protocol.InferRequest:
    """Decodes an infer request that has been read already.

    The `data` of a tensor may also be a memoryview of its binary form, or, for floats,
    an array (n,) of its numbers.

    Raises:
        ClientError: It is not a valid infer request for this model.
    """
    request_id = document.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > _MAX_ID_CHARS):
        raise ClientError(f"id must be a string of at most {_MAX_ID_CHARS} characters")
    methods, tensors, binary = _wanted(document, signature)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise ClientError("inputs must be a list of at least one tensor")
    rows = _rows(inputs, signature)
    if signature.complete:
        _check_present(rows, signature)
    return protocol.InferRequest(request_id, rows, methods, tensors, binary)


def _check_present(rows: protocol.Rows, signature: Signature) -> None:
    """Refuses missing values where training had none."""
    matrix = rows.matrix
    if matrix is not None and matrix.dtype != object and not np.isnan(matrix).any():
        return
    for position in signature.complete:
        values = matrix[:, position] if matrix is not None else (rows.columns or ())[position]
        missing = is_missing(values)
        if missing.any():
            raise ClientError(
                f"feature {quoted(signature.columns[position].name)} lacks a value in row {int(missing.argmax())};"
                " the model was trained without missing values there"
            )


def is_missing(values: protocol.Array) -> protocol.Array:
    """Returns a mask (n_rows,) of the values that are None or NaN."""
    if values.dtype == object:
        return np.array([v is None or v != v for v in values.tolist()], dtype=np.bool_)  # noqa: PLR0124
    return np.isnan(values)


def _attach_binary(inputs: list[Any], blob: memoryview) -> None:
    """Gives each binary tensor its piece of what follows the JSON, in their order."""
    start = 0
    for position, tensor in enumerate(inputs):
        size = _parameters(tensor, f"inputs[{position}]").get("binary_data_size")
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(blob) - start:
            raise ClientError(
                f"inputs[{position}].parameters.binary_data_size {quoted(size)} does not fit"
                f" the {len(blob) - start} bytes that are left"
            )
        if "data" in tensor:
            raise ClientError(f"inputs[{position}] has both data and parameters.binary_data_size")
        tensor["data"] = blob[start : start + size]
        start += size
    if start != len(blob):
        raise ClientError(f"{len(blob) - start} bytes after the last binary tensor belong to none")


def _parameters(holder: Any, field: str) -> dict[str, Any]:
    parameters = holder.get("parameters") if isinstance(holder, dict) else None
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ClientError(f"{field}.parameters must be an object")
    return parameters


# What is asked of the model, which names that was put in where they are not the same, and which of them in binary.
_Wanted = tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]


def _wanted(document: dict[str, Any], signature: Signature) -> _Wanted:
    """Returns what is asked for: by `outputs`, else by `parameters.method`, else the model's default."""
    outputs, parameters = document.get("outputs"), document.get("parameters")
    if outputs is not None and type(outputs) is not list:
        raise ClientError("outputs must be a list of objects, each with a name")
    if parameters is not None and type(parameters) is not dict:
        raise ClientError("parameters must be an object")
    method, all_binary = signature.methods[0], False
    if parameters:
        method = parameters.get("method", method)
        if method not in signature.methods:
            raise ClientError(f"parameters.method {quoted(method)} is not one of {', '.join(signature.methods)}")
        all_binary = _flag(parameters, "binary_data_output", "parameters", otherwise=False)
    if not outputs:
        return (method,), (), frozenset((method,)) if all_binary else _NO_BINARY
    # A name that comes twice is one output, in the form that it was last asked for in.
    chosen: dict[Any, bool] = {}
    plain = True
    for position, output in enumerate(outputs):
        name = output.get("name") if type(output) is dict else None
        if name not in signature.methods:
            _check_output(output, position, signature)
            plain = False
        own = _parameters(output, f"outputs[{position}]") if "parameters" in output else None
        chosen[name] = _flag(own, "binary_data", f"outputs[{position}].parameters", all_binary) if own else all_binary
    names = tuple(chosen)
    binary = frozenset(filter(chosen.get, names)) if True in chosen.values() else _NO_BINARY
    return (names, (), binary) if plain else (tuple(dict.fromkeys(map(protocol.method_of, names))), names, binary)


def _check_output(output: Any, position: int, signature: Signature) -> None:
    """Refuses an item of `outputs` that is none of the model's tensors."""
    field = f"outputs[{position}]"
    if not isinstance(output, dict):
        raise ClientError(f'{field} must be an object such as {{"name": "{signature.methods[0]}"}}')
    known = tuple(dict.fromkeys((*signature.methods, *(tensor.name for tensor in signature.outputs))))
    if "name" not in output:
        raise ClientError(f"{field} lacks a name, which is one of {', '.join(known)}")
    if output["name"] not in known:
        raise ClientError(f"{field}.name {quoted(output['name'])} is not one of {', '.join(known)}")


def _flag(parameters: dict[str, Any], name: str, field: str, otherwise: bool) -> bool:  # noqa: FBT001
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise ClientError(f"{field}.{name} must be true or false")
    return otherwise if value is None else value


def _rows(inputs: list[Any], signature: Signature) -> protocol.Rows:
    if len(inputs) == 1 and (tensor := _whole(inputs[0], signature)) is not None:
        return tensor
    return _by_column(inputs, signature)


def _whole(tensor: Any, signature: Signature) -> protocol.Rows | None:
    """Decodes a lone tensor (n_rows, n_features); None when it is a column by name."""
    name, datatype, shape = _header(tensor, 0)
    if signature.layout is Layout.TEXT:
        if datatype != "BYTES" or not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
            raise ClientError(f"input {quoted(name)}: this model takes BYTES of shape [n_rows]")
        texts = tensors.values(tensor, name, datatype, shape).reshape(-1)
        if (missing := is_missing(texts)).any():
            raise ClientError(f"input {quoted(name)}: data[{int(missing.argmax())}] is null, but must be a string")
        return protocol.Rows(shape[0], matrix=texts)
    if signature.width == 1 and len(shape) == 1 and name == signature.columns[0].name:
        return None
    if len(shape) != 2 or (signature.width is not None and shape[1] != signature.width):
        if name in signature.by_name and signature.width != 1:
            return None
        width = "n_features" if signature.width is None else signature.width
        raise ClientError(f"input {quoted(name)}: shape {shape} must be [n_rows, {width}]")
    if not (signature.takes_strings if datatype == "BYTES" else signature.takes_numbers):
        for column in signature.columns:
            _check_kind(name, datatype, column)
    values = tensors.values(tensor, name, datatype, shape)
    if signature.layout is Layout.FRAME:
        return protocol.Rows(shape[0], columns=tuple(_for_model(values[:, i]) for i in range(values.shape[1])))
    return protocol.Rows(shape[0], matrix=_for_model(values))


def _by_column(inputs: list[Any], signature: Signature) -> protocol.Rows:
    """Decodes one tensor a feature, found by name, of shape [n_rows] or [n_rows, 1]."""
    if not signature.columns:
        raise ClientError("inputs must be one tensor of shape [n_rows, n_features]")
    given: dict[str, protocol.Array] = {}
    count = -1
    for position, tensor in enumerate(inputs):
        name, datatype, shape = _header(tensor, position)
        column = signature.by_name.get(name)
        if column is None:
            raise ClientError(f"input {quoted(name)} is not a feature of this model; {_expected(signature)}")
        if name in given:
            raise ClientError(f"input {quoted(name)} is given twice")
        if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
            raise ClientError(f"input {quoted(name)}: shape {shape} must be [n_rows] or [n_rows, 1]")
        if count not in (-1, shape[0]):
            raise ClientError(f"input {quoted(name)}: {shape[0]} rows, but the inputs before it have {count}")
        count = shape[0]
        _check_kind(name, datatype, column)
        given[name] = tensors.values(tensor, name, datatype, shape).reshape(-1)
    _check_complete(given, signature)
    return _assembled([given[column.name] for column in signature.columns], count, signature)


def _check_complete(given: dict[str, protocol.Array], signature: Signature) -> None:
    missing = [column.name for column in signature.columns if column.name not in given]
    if missing:
        shown = ", ".join(quoted(name) for name in missing[:5])
        raise ClientError(f"inputs lack {len(missing)} of {len(signature.columns)} features: {shown}")


def _assembled(columns: list[protocol.Array], count: int, signature: Signature) -> protocol.Rows:
    """Puts one array a feature, in training order, into the layout that the model takes."""
    if signature.layout is Layout.FRAME:
        return protocol.Rows(count, columns=tuple(_for_model(values) for values in columns))
    if signature.numeric:
        return protocol.Rows(count, matrix=np.column_stack([v.astype(np.float64) for v in columns]))
    mixed = np.empty((count, len(columns)), dtype=object)
    for i, values in enumerate(columns):
        mixed[:, i] = values
    return protocol.Rows(count, matrix=mixed)


def _expected(signature: Signature) -> str:
    names = [column.name for column in signature.columns]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"it takes {shown}, or one tensor of shape [n_rows, {signature.width}]"


def _header(tensor: Any, position: int) -> tuple[str, str, list[int]]:
    """Returns a tensor's name, datatype and shape, checked."""
    if not isinstance(tensor, dict):
        raise ClientError(f"inputs[{position}] must be an object")
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str):
        raise ClientError(f"inputs[{position}].name must be a string")
    if not isinstance(datatype, str) or datatype not in protocol.DATATYPES:
        known = ", ".join(protocol.DATATYPES)
        raise ClientError(f"input {quoted(name)}: datatype {quoted(datatype)} is not one of {known}")
    if not isinstance(shape, list) or not 1 <= len(shape) <= _MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise ClientError(f"input {quoted(name)}: shape must be a list of 1 to {_MAX_DIMENSIONS} sizes above 0")
    if "parameters" in tensor:
        _check_binary(tensor, name, f"inputs[{position}]")
    return name, datatype, shape


def _is_size(size: Any) -> bool:
    return type(size) is int and 0 < size < _MAX_SIZE


def _check_binary(tensor: dict[str, Any], name: str, field: str) -> None:
    """Refuses a tensor that says that its data is binary when there is nothing that it could lie in."""
    size = _parameters(tensor, field).get("binary_data_size")
    if size is not None and not isinstance(tensor.get("data"), memoryview):
        raise ClientError(
            f"input {quoted(name)}: {field}.parameters.binary_data_size needs the header {_HEADER}, which says how"
            " many bytes of the body are JSON"
        )


def _check_kind(name: str, datatype: str, column: Column) -> None:
    if column.kind is Kind.NUMBER and datatype == "BYTES":
        raise ClientError(f"input {quoted(name)}: datatype BYTES, but feature {quoted(column.name)} is a number")
    if column.kind is Kind.STRING and datatype != "BYTES":
        raise ClientError(
            f"input {quoted(name)}: datatype {datatype}, but feature {quoted(column.name)} is a string (BYTES)"
        )


def _for_model(values: protocol.Array) -> protocol.Array:
    return values if values.dtype == object else values.astype(np.float64, copy=False)
