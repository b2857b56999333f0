"""Proves that a model answers here as it did in training, before anybody is served by it."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from kedge_server import admission, failures, loading, packages, predicting, protocol
from kedge_server.settings import Compile, Settings
from kedge_server.signature import Kind, Layout, OutputTensor, Signature, observed

_log = logging.getLogger(__name__)


def load_and_prove(settings: Settings) -> tuple[loading.LoadedModel, predicting.Predictor]:
    """Loads the model of `settings` and tries it out.

    Raises:
        StartFailure: For any of the reasons that a package can give.
    """
    model = loading.load(
        settings.model_path,
        settings.sha256,
        settings.trusted_types,
        allow_version_skew=settings.allow_version_skew,
    )
    predictor = predicting.Predictor(model.estimator, model.signature)
    if model.package is not None:
        outputs = check_golden_rows(predictor, model.signature, model.package)
    else:
        outputs = warm_up(predictor, model.signature)
    if settings.compile is Compile.AUTO:
        admission.admit(model, predictor)
    described = dataclasses.replace(model.signature, outputs=outputs)
    return dataclasses.replace(model, signature=described), predictor


def check_golden_rows(
    predictor: predicting.Predictor, signature: Signature, package: packages.Package
) -> tuple[OutputTensor, ...]:
    """Predicts the golden rows and compares every answer; returns what the outputs look like.

    Raises:
        StartFailure: GoldenRowsMismatch.
    """
    columns = packages.golden_request(package.golden, signature.columns)
    rows = signature.rows_of(columns)
    found: list[OutputTensor] = []
    for method in signature.methods:
        try:
            outputs = predictor.try_out(protocol.InferRequest(None, rows, (method,)))
        except Exception as exc:
            raise _mismatch(f"{method} raised {type(exc).__name__}: {exc}") from exc
        for name, array in outputs:
            if name not in package.golden.answers:
                raise _mismatch(f"{name} has no golden answer")
            differing = packages.differences(package.golden, name, array)
            if differing:
                raise _mismatch(
                    f"{name} differs in {len(differing)} of {rows.count} golden rows, the first of which is"
                    f" {differing[0]}"
                )
            found.append(observed(name, array))
    return tuple(found)


def _mismatch(what: str) -> failures.StartFailure:
    return failures.StartFailure(
        failures.GOLDEN_ROWS_MISMATCH,
        f"The model does not answer as it did when it was packed: {what}; serve it with the library versions of"
        " its training, or pack it again.",
    )


def warm_up(predictor: predicting.Predictor, signature: Signature) -> tuple[OutputTensor, ...]:
    """Predicts one made-up row, when one can be made of values that the model has learnt.

    The first prediction imports, allocates and starts more than any later one, which
    should cost no user's request its time. A ValueError says that the row does not
    suit the model (a logarithm has no zero), which does not make it a bad model; any
    other error is one that users would meet too. Returns the outputs, as
    they turned out where they could be seen.

    Raises:
        StartFailure: WarmUpFailed.
    """
    rows = _made_up_rows(signature)
    if rows is None:
        return signature.outputs
    described: list[OutputTensor] = []
    default = signature.methods[0]
    for method in signature.methods:
        try:
            outputs = predictor.try_out(protocol.InferRequest(None, rows, (method,)))
        except Exception as exc:
            if isinstance(exc, ValueError) or method != default:
                _log.warning(
                    "the made-up warm-up row does not suit the model",
                    extra={"method": method, "error": f"{type(exc).__name__}: {exc}"[:300]},
                )
                described.extend(signature.outputs_of(method))
                continue
            raise failures.StartFailure(
                failures.WARM_UP_FAILED,
                f"The model loads but cannot {default}: {type(exc).__name__}: {exc}; check that it does with this"
                " server's library versions.",
            ) from exc
        described.extend(observed(name, array) for name, array in outputs)
    return tuple(described)


def _made_up_rows(signature: Signature) -> protocol.Rows | None:
    if signature.layout is Layout.TEXT:
        return protocol.Rows(1, matrix=np.array([""], dtype=object))
    if signature.width is None or any(column.example is None for column in signature.columns):
        return None
    return signature.rows_of(
        tuple(
            np.array([column.example], dtype=object if column.kind is Kind.STRING else np.float64)
            for column in signature.columns
        )
    )
