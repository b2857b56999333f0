"""Turns the data of one tensor of an infer request into an array, or says what is wrong with it. Pure."""

from __future__ import annotations

import itertools
import math
import re
import struct
from typing import Any, TypeVar

import numpy as np

from kedge_server import protocol
from kedge_server.errors import ClientError, quoted

_FLOATS = ("FP16", "FP32", "FP64")
# Of each datatype of numbers: its format in `struct`, its type, and a pattern of what 0 and 1 have in common when they
# are packed. A regular expression finds it in half of the time that `in` takes.
_STRUCTS = {
    # In the machine's own order `struct` makes infinity of a number that a float32 does not have.
    name: ("<%df" if name == "FP32" else f"%d{dtype.char}", dtype, re.compile(bytes(max(0, dtype.itemsize - 2))))
    for name, dtype in protocol.DATATYPES.items()
    if name not in ("BOOL", "BYTES")
}
_LONG = ("INT64", "UINT64")
# Every whole number up to this one is a float64 too.
_EXACT = 1 << 53
_JSON_TYPES = {
    bool: "a boolean",
    dict: "an object",
    float: "a number with a fraction",
    int: "a whole number",
    list: "a list",
    str: "a string",
    type(None): "null",
}
_Data = TypeVar("_Data", list[Any], protocol.Array)


def values(tensor: dict[str, Any], name: str, datatype: str, shape: list[int]) -> protocol.Array:
    """Returns a tensor's data as an array of its shape.

    `struct` reads a list several times faster than numpy does, checks every value's
    type and range, and cannot be made to allocate a wide string for each number.
    """
    data = tensor.get("data")
    if isinstance(data, memoryview):
        return _binary_values(data, name, datatype, shape)
    if isinstance(data, np.ndarray):
        return _sized(data, name, shape).reshape(shape)
    if not isinstance(data, list):
        raise ClientError(f"input {quoted(name)}: data must be a list")
    data = _flat(data, name, shape)
    if datatype == "BYTES":
        return _strings(data, name).reshape(shape)
    if datatype == "BOOL":
        _check_types(data, name, datatype, (bool,))
        return np.array(data, dtype=np.bool_).reshape(shape)
    try:
        packed = _packed(data, datatype)
    except (struct.error, TypeError, OverflowError):
        return _with_nulls(data, name, datatype).reshape(shape)
    _, dtype, zero_or_one = _STRUCTS[datatype]
    # `struct` takes a boolean for a 0 or 1. To ask every value for its type would take longer than to pack it, so
    # that is done only where there may be some.
    if zero_or_one.search(packed) and bool in set(map(type, data)):
        _check_types(data, name, datatype, (int, float))
    numbers = np.frombuffer(packed, dtype=dtype)
    if datatype in _LONG:
        _check_exact(numbers, name)
    return numbers.reshape(shape)


def _packed(data: list[Any], datatype: str) -> bytearray:
    form, dtype, _ = _STRUCTS[datatype]
    packed = bytearray(dtype.itemsize * len(data))
    struct.pack_into(form % len(data), packed, 0, *data)
    return packed


def _check_exact(numbers: protocol.Array, name: str) -> None:
    """Refuses what would be another number as a float64, in which every model here gets its numbers."""
    if numbers.max() <= _EXACT and numbers.min() >= -_EXACT:
        return
    for position, number in enumerate(numbers.tolist()):
        if int(float(number)) != number:
            raise ClientError(
                f"input {quoted(name)}: data[{position}] is {number}, but the model gets numbers as float64, which"
                f" does not have that one; round it to {int(float(number))}, or use strings for what only names things"
            )


def _binary_values(data: memoryview, name: str, datatype: str, shape: list[int]) -> protocol.Array:
    """Reads a little-endian binary tensor; strings have their length in four bytes before them."""
    size = math.prod(shape)
    if datatype == "BYTES":
        return _binary_strings(data, name, size).reshape(shape)
    dtype = protocol.DATATYPES[datatype]
    if len(data) != size * dtype.itemsize:
        raise ClientError(
            f"input {quoted(name)}: {len(data)} bytes of binary data, but {datatype} of shape {shape}"
            f" needs {size * dtype.itemsize}"
        )
    if datatype == "BOOL":
        octets = np.frombuffer(data, dtype=np.uint8)
        if (octets > 1).any():
            raise ClientError(f"input {quoted(name)}: binary BOOL data must be bytes of 0 or 1")
        return octets.astype(np.bool_).reshape(shape)
    numbers = np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype)
    if datatype in _LONG:
        _check_exact(numbers, name)
    return numbers.reshape(shape)


def _binary_strings(data: memoryview, name: str, size: int) -> protocol.Array:
    strings = np.empty(size, dtype=object)
    start = 0
    for position in range(size):
        if len(data) - start < 4:
            raise ClientError(f"input {quoted(name)}: binary data ends before string {position} of {size}")
        length = int.from_bytes(data[start : start + 4], "little")
        start += 4
        if length > len(data) - start:
            raise ClientError(f"input {quoted(name)}: string {position} is longer than the binary data")
        try:
            strings[position] = str(data[start : start + length], "utf-8")
        except UnicodeDecodeError as exc:
            raise ClientError(f"input {quoted(name)}: string {position} is not UTF-8") from exc
        start += length
    if start != len(data):
        raise ClientError(f"input {quoted(name)}: {len(data) - start} bytes follow the last string")
    return strings


def _flat(data: list[Any], name: str, shape: list[int]) -> list[Any]:
    """Returns nested or flat `data` as a flat list of as many values as `shape` says."""
    if data and isinstance(data[0], list) and len(shape) > 1:
        for length in shape[1:]:
            if not all(isinstance(item, list) and len(item) == length for item in data):
                raise ClientError(f"input {quoted(name)}: data is not nested as shape {shape} says")
            data = list(itertools.chain.from_iterable(data))
    return _sized(data, name, shape)


def _sized(data: _Data, name: str, shape: list[int]) -> _Data:
    size = math.prod(shape)
    if len(data) != size:
        raise ClientError(f"input {quoted(name)}: data holds {len(data)} values, but shape {shape} needs {size}")
    return data


def _strings(data: list[Any], name: str) -> protocol.Array:
    _check_types(data, name, "BYTES", (str, type(None)))
    array = np.empty(len(data), dtype=object)
    array[:] = data
    return array


def _with_nulls(data: list[Any], name: str, datatype: str) -> protocol.Array:
    """Reads null as NaN in a float tensor, and says what else is wrong with the data."""
    if datatype in _FLOATS:
        _check_types(data, name, datatype, (int, float, type(None)))
        try:
            packed = _packed([math.nan if value is None else value for value in data], datatype)
        except (struct.error, OverflowError) as exc:
            raise ClientError(f"input {quoted(name)}: data holds a number outside {datatype}") from exc
        return np.frombuffer(packed, dtype=_STRUCTS[datatype][1])
    # orjson makes a float of a whole number that has more than 64 bits.
    _check_types([int(v) if type(v) is float and abs(v) >= 1 << 63 else v for v in data], name, datatype, (int,))
    raise ClientError(f"input {quoted(name)}: data holds a number outside {datatype}")


def _check_types(data: list[Any], name: str, datatype: str, types: tuple[type, ...]) -> None:
    """Names the first value that is not of one of `types`."""
    if set(map(type, data)).issubset(types):
        return
    for position, value in enumerate(data):
        if type(value) not in types:
            raise ClientError(
                f"input {quoted(name)}: data[{position}] is {_JSON_TYPES[type(value)]},"
                f" which datatype {datatype} does not allow"
            )
