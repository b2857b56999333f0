"""Proves that libsvm finds a support vector machine's arrays as long as it believes them to be.

scikit-learn hands libsvm bare addresses. How much is read from each follows from two
numbers: the support vectors, and the classes of which every pair has its own function.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np
from sklearn.gaussian_process.kernels import Kernel

from kedge_server.bounds import array, require, width
from kedge_server.protocol import Array

_KERNELS = ("linear", "poly", "rbf", "sigmoid")


def check(machine: Any) -> None:
    """Checks SVC, NuSVC, SVR, NuSVR and OneClassSVM, if fitted."""
    if "_n_support" not in vars(machine):
        return
    classes = len(machine._n_support)  # noqa: SLF001
    vectors = len(machine.support_)
    in_class = array(machine, "_n_support", (classes,), np.int32)
    require(classes > 1 and in_class.min() >= 0, machine, "_n_support", "has not a number for each of two classes")
    if machine._impl in ("c_svc", "nu_svc"):  # noqa: SLF001
        total = int(in_class.sum(dtype=np.int64))
        require(total == vectors, machine, "_n_support", f"adds up to {total} support vectors of {vectors}")
    support = array(machine, "support_", (vectors,), np.int32)
    pairs = classes * (classes - 1) // 2
    array(machine, "_intercept_", (pairs,), np.float64)
    # Before scikit-learn 1.8 it is the parameter itself.
    calibrated = getattr(machine, "_effective_probability", machine.probability) or len(machine._probA)  # noqa: SLF001
    for name in ("_probA", "_probB"):
        array(machine, name, (pairs if calibrated else 0,), np.float64)
    if machine._sparse:  # noqa: SLF001
        _check_sparse(machine, classes, vectors)
    else:
        _check_dense(machine, classes, vectors, support)


def _check_dense(machine: Any, classes: int, vectors: int, support: Array) -> None:
    array(machine, "_dual_coef_", (classes - 1, vectors), np.float64)
    if machine.kernel in _KERNELS:
        array(machine, "support_vectors_", (vectors, width(machine)), np.float64)
        return
    # The support vectors are columns of what the kernel gives.
    _check_kernel(machine)
    columns = machine.shape_fit_[0]
    inside = not vectors or (support.min() >= 0 and support.max() < columns)
    require(inside, machine, "support_", f"points outside the {columns} rows of training")


def _check_kernel(machine: Any) -> None:
    kernel = machine.kernel
    if isinstance(kernel, str):
        require(kernel == "precomputed", machine, "kernel", "is not known")
        return
    # Ufuncs, which are trusted too, would give any number of columns.
    function = kernel.func if isinstance(kernel, functools.partial) else kernel
    known = isinstance(function, (types.FunctionType, types.MethodType, Kernel))
    require(known, machine, "kernel", "is not a kernel function")
    learnt = vars(machine)["_BaseLibSVM__Xfit"].shape[0]
    require(learnt == machine.shape_fit_[0], machine, "shape_fit_", f"has not the {learnt} rows of training")


def _check_sparse(machine: Any, classes: int, vectors: int) -> None:
    # Of a sparse precomputed kernel, libsvm would take the numbers for positions.
    require(machine.kernel in _KERNELS, machine, "kernel", "is not one for sparse rows")
    for name, shape in (("support_vectors_", (vectors, width(machine))), ("_dual_coef_", (classes - 1, vectors))):
        matrix = getattr(machine, name)
        require(matrix.format == "csr" and matrix.shape == shape, machine, name, f"is not a csr matrix of {shape}")
    # Its numbers are taken row by row, whatever its indices say.
    data = machine._dual_coef_.data
    require(data.shape == ((classes - 1) * vectors,), machine, "_dual_coef_", "leaves numbers out")
