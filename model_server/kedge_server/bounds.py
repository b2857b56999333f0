"""What the checks of loaded models share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kedge_server.protocol import Array


class UnsoundModelError(ValueError):
    """Compiled code would follow the model's arrays out of their memory."""


def require(fits: Any, owner: Any, attribute: str, why: str) -> None:
    """Refuses an attribute that does not fit the others."""
    if not fits:
        raise UnsoundModelError(f"{type(owner).__name__}.{attribute} {why}")


def array(owner: Any, attribute: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Returns an array that compiled code takes by its address, if it is laid out as that code believes."""
    found = getattr(owner, attribute)
    plain = type(found) is np.ndarray and found.flags.c_contiguous
    require(plain and found.dtype == dtype, owner, attribute, f"is not a plain array of {np.dtype(dtype)}")
    require(found.shape == shape, owner, attribute, f"is {found.shape} where the rest of the model makes it {shape}")
    return np.asarray(found)


def width(owner: Any) -> int:
    """Returns the number of features that scikit-learn holds rows for `owner` against."""
    found = vars(owner).get("n_features_in_")
    # Of something else than a number, the comparison may come out as anything.
    require(isinstance(found, (int, np.integer)), owner, "n_features_in_", "is not a number")
    return int(found)
