"""Makes a package of a fitted model and the data that it was trained on."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import skops.io

from kedge_server import decoding, failures, loading, packages, predicting, profiles, protocol, proving
from kedge_server.settings import Settings
from kedge_server.signature import Column, Kind, Layout, OutputTensor, Signature, describe, observed

_log = logging.getLogger(__name__)

DEFAULT_GOLDEN_ROWS = 20
# A sample of this many rows gives deciles to within a fraction of a percent.
_MAX_REFERENCE_ROWS = 100_000
# What stands for a missing number in a CSV file.
_MISSING_NUMBERS = ("", "NA", "N/A", "#N/A", "NaN", "nan", "-nan", "null", "NULL", "None", "<NA>")


def package(
    model: Any,
    reference: Any,
    out: Path | str,
    *,
    name: str,
    version: str = "1",
    golden_rows: int = DEFAULT_GOLDEN_ROWS,
    trusted_types: tuple[str, ...] = (),
    bins_of: Path | str | None = None,
) -> str:
    """Writes a package to the new directory `out` and returns its digest.

    Args:
        model: A fitted scikit-learn estimator.
        reference: Rows like those of training, (n_rows, n_features): a DataFrame or an
            array. Its deciles become the bins over which live rows are counted.
        out: Must not exist.
        name: Of the model, as clients will ask for it.
        version: Of the model.
        golden_rows: How many rows of the reference are kept with their answers.
        trusted_types: Types of the model that skops does not trust by itself.
        bins_of: The package of an earlier version, whose bins are taken where the kind of the feature or output
            is the same: only over the same bins can two versions' live data be compared.

    Raises:
        ValueError: The reference does not fit the model, or the model raises for it.
        FileExistsError: `out` exists.
        StartFailure: The model does not load again from what was written, or the earlier package cannot be read.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    like = None if bins_of is None else packages.read(Path(bins_of), None).profile
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        skops.io.dump(model, partial / packages.MODEL)
        # What is packed is what will be loaded, and not what is in this memory.
        loaded = loading.load(partial / packages.MODEL, trusted_types=trusted_types)
        signature = describe(loaded.estimator)
        columns = reference_columns(reference, signature)
        described = tuple(_described(c, v) for c, v in zip(signature.columns, columns, strict=True))
        predictor = predicting.Predictor(loaded.estimator, signature)
        profile = _profile(loaded.estimator, predictor, signature, columns, like)
        _write_json(partial / packages.PROFILE, profile.to_json())
        golden, outputs = _golden(predictor, signature, columns, golden_rows)
        _write_json(partial / packages.GOLDEN, golden.to_json())
        manifest = packages.Manifest(
            name=name,
            version=version,
            libraries=packages.libraries(),
            trusted_types=_needed(partial / packages.MODEL),
            columns=described,
            outputs=outputs,
            files={n: hashlib.sha256((partial / n).read_bytes()).hexdigest() for n in packages.FILES},
        )
        content = manifest.to_json()
        (partial / packages.MANIFEST).write_bytes(content)
        _prove(partial, trusted_types)
        _compare(model, reference, signature, golden, golden_rows)
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return hashlib.sha256(content).hexdigest()


def _needed(model: Path) -> tuple[str, ...]:
    with model.open("rb") as file:
        return tuple(loading.untrusted_types(file))


def _compare(model: Any, reference: Any, signature: Signature, golden: packages.GoldenRows, wanted: int) -> None:
    """Asks the model itself for the golden rows in the form in which they were given, which is that of its training."""
    step = _step(reference)
    chosen = step * _spread(len(reference[::step]), wanted)
    if signature.named and hasattr(reference, "columns"):
        rows = reference[[column.name for column in signature.columns]].iloc[chosen].apply(_as_trained)
    else:
        rows = np.asarray(reference)[chosen]
        rows = rows.astype(np.float64) if rows.dtype.kind == "f" else rows
    for method in signature.methods:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                own = predicting.tensors_of(method, getattr(model, method)(rows), len(rows), bounded=False)
        except Exception as exc:  # noqa: BLE001 - it takes other types than the reference's, which packing has converted
            _log.debug("%s of the model itself does not take the reference as it is: %s", method, exc)
            continue
        for name, array in own:
            if differing := packages.differences(golden, name, array):
                raise ValueError(
                    f"{name} of the model itself is another than a server's for row {chosen[differing[0]]} of the"
                    " reference; give it as numbers, strings and missing values only"
                )


def _as_trained(values: Any) -> Any:
    """Returns a column without what makes a difference that is none of the server's: rounding, and pandas' NA."""
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415 - as below

    if values.dtype in (np.float16, np.float32):
        return values.astype(np.float64)
    if getattr(values.dtype, "na_value", None) is not pd.NA:
        return values
    numbers = pd.api.types.is_numeric_dtype(values.dtype)
    return pd.Series(values.to_numpy(np.float64 if numbers else object, na_value=np.nan), values.index)


def _prove(folder: Path, trusted_types: tuple[str, ...]) -> None:
    """Tries what a server will try when it starts, so that nobody is told of a digest that cannot be served."""
    try:
        proving.load_and_prove(Settings(model_name="packed", model_path=folder, trusted_types=trusted_types))
    except failures.StartFailure as exc:
        raise ValueError(f"a server would refuse this package: {exc}") from exc


def reference_columns(reference: Any, signature: Signature) -> tuple[protocol.Array, ...]:
    """Returns the reference as one array (n_rows,) a feature: float64, or object of strings and None.

    Raises:
        ValueError: It lacks a feature, has no rows or values of another kind, or the model takes text.
    """
    if not signature.columns or signature.layout is Layout.TEXT:
        raise ValueError("a package needs a model with a fixed number of features")
    names = [column.name for column in signature.columns]
    if hasattr(reference, "columns"):
        given = {str(label): reference[label] for label in reference.columns}
        if missing := [name for name in names if signature.named and name not in given]:
            raise ValueError(f"the reference lacks {', '.join(missing[:5])}")
        arrays = [given[name] for name in names] if signature.named else list(given.values())
    else:
        rows = np.asarray(reference)
        if rows.ndim != 2:
            raise ValueError(f"the reference has the shape {rows.shape}; it must be (n_rows, n_features)")
        arrays = list(rows.T)
    if len(arrays) != len(names):
        raise ValueError(f"the reference has {len(arrays)} features, but the model takes {len(names)}")
    if len(reference) == 0:
        raise ValueError("the reference has no rows")
    step = _step(reference)
    return tuple(_typed(c, np.asarray(values)[::step]) for c, values in zip(signature.columns, arrays, strict=True))


def _step(reference: Any) -> int:
    """Returns every how manieth row of the reference is looked at."""
    return max(1, len(reference) // _MAX_REFERENCE_ROWS)


def _spread(count: int, wanted: int) -> protocol.Array:
    """Returns the positions of about `wanted` rows, spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, max(1, wanted)).astype(int))


def _typed(column: Column, values: protocol.Array) -> protocol.Array:
    """Returns a feature's values as float64 for numbers, and as object for strings, with None for what is missing.

    What the model does not tell, the values do. When all are missing, only their type can.
    """
    if values.dtype.kind not in "fiubOUT":
        raise ValueError(f'feature "{column.name}" of the reference is of type {values.dtype}; give numbers or strings')
    if values.dtype.kind in "fiub" and column.kind is not Kind.STRING:
        return values.astype(np.float64)
    import pandas as pd  # noqa: PLC0415 - half a second, which --help need not take

    # Of all that there is to mark a missing value, pandas' own is equal to nothing and not even unequal to itself.
    there = ~pd.isna(values)
    present = values[there].tolist()
    numbers = present and all(isinstance(v, (Real, np.bool_)) for v in present)
    if column.kind is Kind.STRING or (column.kind is Kind.ANY and not numbers):
        if (odd := next((v for v in present if not isinstance(v, str)), None)) is not None:
            raise ValueError(f'feature "{column.name}" takes strings, but the reference has {odd!r:.60}; convert it')
        strings = np.full(len(values), None, dtype=object)
        strings[there] = present
        return strings
    floats = np.full(len(values), np.nan)
    try:
        floats[there] = [float(v) for v in present]
    except (TypeError, ValueError, OverflowError) as exc:
        raise ValueError(f'feature "{column.name}" takes numbers, unlike the reference: {exc!s:.200}') from exc
    return floats


def _described(column: Column, values: protocol.Array) -> Column:
    """Adds to what the model tells of a feature what its training data tells."""
    missing = decoding.is_missing(values)
    strings = values.dtype == object
    return Column(
        name=column.name,
        kind=Kind.STRING if strings else Kind.NUMBER,
        example=next(iter(values[~missing].tolist()), None),
        datatype="BYTES" if strings else "FP64",
        allow_missing=bool(missing.any()),
    )


def read_reference(path: Path, signature: Signature) -> Any:
    """Reads reference rows from a CSV file with a header, or from a `.npy` file.

    Columns that are strings in the model stay strings, also those that look like numbers.

    Raises:
        ValueError: The file is of another kind or damaged.
        OSError: It cannot be read.
    """
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except EOFError as exc:
            raise ValueError(f"the reference {path} is empty") from exc
    if path.suffix == ".csv":
        import pandas as pd  # noqa: PLC0415

        header = [str(name) for name in pd.read_csv(path, nrows=0).columns]
        columns = signature.by_name if signature.named else dict(zip(header, signature.columns, strict=False))
        strings = [name for name in header if name in columns and columns[name].kind is Kind.STRING]
        # Among strings only an empty field is missing: NA is a country, and None may be an answer.
        missing = dict.fromkeys(header, _MISSING_NUMBERS) | dict.fromkeys(strings, ("",))
        return pd.read_csv(path, dtype=dict.fromkeys(strings, str), keep_default_na=False, na_values=missing)
    raise ValueError(f"the reference {path} must be a .csv or a .npy file")


def _profile(
    estimator: Any,
    predictor: predicting.Predictor,
    signature: Signature,
    columns: tuple[protocol.Array, ...],
    like: profiles.Profile | None,
) -> profiles.Profile:
    methods = tuple(m for m in signature.methods if m in ("predict", "predict_proba"))
    outputs = _answers(predictor, signature.rows_of(columns), methods)
    names = [column.name for column in signature.columns]
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    features, further = profiles.of_features(names, columns, like)
    return profiles.Profile(
        rows=len(columns[0]),
        features=features,
        further=further,
        outputs=profiles.of_outputs(outputs, like),
        calibrated=type(last).__name__ == "CalibratedClassifierCV",
    )


def _golden(
    predictor: predicting.Predictor, signature: Signature, columns: tuple[protocol.Array, ...], wanted: int
) -> tuple[packages.GoldenRows, tuple[OutputTensor, ...]]:
    """Keeps rows spread evenly over the reference, with every answer of the model, and what these look like."""
    chosen = _spread(len(columns[0]), wanted)
    rows = tuple(values[chosen] for values in columns)
    answers: dict[str, list[Any]] = {}
    outputs: list[OutputTensor] = []
    for method in signature.methods:
        for name, array in _answers(predictor, signature.rows_of(rows), (method,)):
            answers[name] = array.tolist()
            outputs.append(observed(name, array))
    golden = packages.GoldenRows(rows=tuple(_without_nan(values) for values in rows), answers=answers)
    return golden, tuple(outputs)


def _answers(predictor: predicting.Predictor, rows: protocol.Rows, methods: tuple[str, ...]) -> list[protocol.Output]:
    try:
        return predictor.try_out(protocol.InferRequest(None, rows, methods))
    except Exception as exc:
        raise ValueError(
            f"the model cannot {' and '.join(methods)} for the reference: {type(exc).__name__}: {exc};"
            " pack it with rows like those of its training"
        ) from exc


def _without_nan(values: protocol.Array) -> list[Any]:
    return [None if v is None or v != v else v for v in values.tolist()]  # noqa: PLR0124 - NaN is not itself


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
