"""The words of the Open Inference Protocol V2 over REST.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
Decoded requests and results are the same whichever encoding (JSON, binary, gRPC)
they came in.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# One output of the model: its name and an array whose first axis is the rows.
Output = tuple[str, Array]

# In a request and in an answer with binary tensors: how many bytes of the body are JSON.
# https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
HEADER_LENGTH = b"inference-header-content-length"
# In every answer, errors too: the version of the model that gave it, which a client that is
# balanced over several cannot know otherwise. Over gRPC it is trailing metadata.
VERSION_HEADER = "kedge-model-version"
EXTENSIONS = ("binary_tensor_data",)

# Tensor datatypes and the numpy types that hold them; BYTES are Python strings.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


def method_of(name: str) -> str:
    """Returns the method that an output is of: predict_proba_1 is of predict_proba, which is its own."""
    method, _, number = name.rpartition("_")
    return method if number.isdecimal() else name


def datatype_of(array: Array) -> str:
    """Returns the protocol's name for the type of a model's output; strings are BYTES."""
    return _NAMES.get(array.dtype, "BYTES")


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one request, in the layout that the signature asks for.

    Attributes:
        count: Number of rows, at least one.
        matrix: float64 or object (n_rows, n_features), or object (n_rows,) for text;
            None when `columns` is set.
        columns: One array (n_rows,) a feature, for the frame layout.
    """

    count: int
    matrix: Array | None = None
    columns: tuple[Array, ...] | None = None

    @property
    def numeric(self) -> bool:
        """Tells whether these are nothing but numbers: what they cost then follows from how many they are."""
        return self.matrix is not None and self.matrix.dtype.kind == "f"


@dataclasses.dataclass(frozen=True, slots=True)
class InferRequest:
    """A decoded infer request.

    Attributes:
        id: Echoed in the answer, or None.
        rows: What to predict.
        methods: What the model has to be asked, without repetition.
        tensors: The names asked for, in that order, where they are not just `methods`. A method's means all of its
            tensors.
        binary: Those of the names asked for that are wanted as binary tensors.
    """

    id: str | None
    rows: Rows
    methods: tuple[str, ...]
    tensors: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()

    def wanted(self, outputs: list[Output]) -> list[Output]:
        """Picks what was asked for out of all that `methods` gave."""
        if not self.tensors:
            return outputs
        found = {name: array for asked in self.tensors for name, array in outputs if asked in (name, method_of(name))}
        return list(found.items())

    def in_binary(self, name: str) -> bool:
        """Tells whether an output is wanted as a binary tensor. What was said of itself goes before its method's."""
        return name in self.binary or (name not in self.tensors and method_of(name) in self.binary)
