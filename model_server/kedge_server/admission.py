"""Decides whether a model's compiled form may answer.

It may when it gives the golden rows the answers of training time, and those that
scikit-learn gives now, alone and together. Otherwise scikit-learn answers, which is
never an error: the log and `kedge_server_compiled_info` say why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from kedge_server import compiling, finals, loading, packages, predicting, spot_checks, stages
from kedge_server.protocol import Array
from kedge_server.spot_checks import Reason

_log = logging.getLogger(__name__)


def admit(model: loading.LoadedModel, predictor: predicting.Predictor) -> None:
    """Compiles `model` and lets `predictor` answer by what is admitted of it."""
    compiled = _judged(model, predictor)
    predictor.use(compiled)
    if compiled.methods:
        _log.info("the model is compiled", extra={"methods": list(compiled.methods)})


def _judged(model: loading.LoadedModel, predictor: predicting.Predictor) -> spot_checks.Compiled:
    if model.package is None:
        return _refused(Reason.NO_GOLDEN_ROWS, "a bare file has no golden rows to prove it by; pack the model")
    golden = model.package.golden
    try:
        functions = compiling.compiled(model.estimator, model.signature)
    except stages.NotCompilableError as exc:
        return _refused(Reason.UNKNOWN_ESTIMATOR, str(exc))
    except Exception as exc:  # noqa: BLE001 - it looks into private parts of estimators
        return _refused(Reason.UNKNOWN_ESTIMATOR, f"{type(exc).__name__}: {exc}"[:300])
    rows = np.column_stack(packages.golden_request(golden, model.signature.columns))
    fault = _fault(functions, rows, golden, predictor)
    return _refused(*fault) if fault else spot_checks.Compiled(functions, golden)


def _refused(reason: Reason, why: str) -> spot_checks.Compiled:
    _log.warning("the model is not compiled, scikit-learn answers", extra={"reason": reason.value, "error": why})
    return spot_checks.Compiled({}, None, reason, why)


def _fault(
    functions: Mapping[str, finals.Function],
    rows: Array,
    golden: packages.GoldenRows,
    predictor: predicting.Predictor,
) -> tuple[Reason, str] | None:
    """Says why the compiled answers to the golden rows prove nothing, or the wrong thing, if they do."""
    for name, function in functions.items():
        exact = np.asarray(predictor.call(name)(rows))
        try:
            with np.errstate(all="ignore"):
                alone = [function(rows[i : i + 1]) for i in range(len(rows))]
                # Rows that it leaves to scikit-learn make it leave the whole batch.
                sure = [i for i, found in enumerate(alone) if found is not None]
                together = function(rows[sure]) if sure else None
        except Exception as exc:  # noqa: BLE001 - whatever it raises, scikit-learn can answer
            return Reason.GOLDEN_ROWS_DIFFER, f"{name} raised {type(exc).__name__}: {exc}"[:300]
        if not sure:
            return Reason.GOLDEN_ROWS_UNSURE, f"{name} leaves each of the golden rows to scikit-learn"
        if together is None:
            return Reason.GOLDEN_ROWS_DIFFER, f"{name} answers golden rows alone and not together"
        answers = np.asarray(golden.answers[name])
        if together.dtype != exact.dtype:
            return Reason.GOLDEN_ROWS_DIFFER, f"{name} gives {together.dtype} and not {exact.dtype}"
        for found in (np.concatenate([a for a in alone if a is not None]), together):
            for expected in (answers[sure], exact[sure]):
                differing = packages.differing(golden, expected, found)
                if differing.any():
                    why = f"{name} differs in {int(differing.sum())} of {len(sure)} golden rows"
                    return Reason.GOLDEN_ROWS_DIFFER, why
    return None
