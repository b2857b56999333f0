"""Loads a model that has proved to be the one that was declared. Refuses everything else.

The file is opened once: what was hashed is what is loaded, also when the file is
replaced in between.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted
from skops.io.exceptions import UntrustedTypesFoundException

from kedge_server import failures, signature, trees

_log = logging.getLogger(__name__)

_ZIP_MAGIC = b"PK\x03\x04"
# skops keeps arrays uncompressed unless asked, and even zlib at its best gains far
# less than this on trained numbers: more means a file made to fill the memory.
_MAX_EXPANSION = 200


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict.

    Attributes:
        estimator: The fitted scikit-learn estimator.
        signature: What it takes and gives.
        digest: sha256 of the file, in hex.
    """

    estimator: Any
    signature: signature.Signature
    digest: str


def load(path: Path, sha256: str | None = None, trusted_types: tuple[str, ...] = ()) -> LoadedModel:
    """Checks the digest of the skops file at `path`, then loads it.

    Raises:
        StartFailure: ModelFetchFailed, ModelDigestMismatch, ModelFormatRefused,
            LibraryVersionSkew or ModelLoadFailed.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            check_digest(str(path), digest, sha256)
            file.seek(0)
            _check_format(path, file)
            estimator = _load_skops(path, file, trusted_types)
    except OSError as exc:
        raise failures.StartFailure(
            failures.MODEL_FETCH_FAILED,
            f"The model cannot be read from {path}: {exc.strerror or exc}; check the model's URI or mount.",
        ) from exc
    _one_thread(estimator)
    try:
        described = _describe(estimator)
    except (ValueError, AttributeError, TypeError) as exc:
        raise failures.StartFailure(
            failures.MODEL_LOAD_FAILED, f"The object in {path} is not a fitted scikit-learn model: {exc}."
        ) from exc
    return LoadedModel(estimator, described, digest)


def _describe(estimator: Any) -> signature.Signature:
    # Estimators from elsewhere need not follow scikit-learn's conventions.
    if type(estimator).__module__.startswith("sklearn."):
        check_is_fitted(estimator)
    return signature.describe(estimator)


def check_digest(what: str, found: str, declared: str | None) -> None:
    """Compares two hex digests.

    Raises:
        StartFailure: ModelDigestMismatch, when one is declared and differs.
    """
    if declared is not None and found != declared.lower():
        raise failures.StartFailure(
            failures.MODEL_DIGEST_MISMATCH,
            f"{what} has sha256 {found}, but {declared.lower()} was declared; "
            "declare the digest of the file that you mean to serve, or restore that file.",
        )


def _check_format(path: Path, file: BinaryIO) -> None:
    """Refuses pickles and other files by their content, whatever they are called."""
    magic = file.read(len(_ZIP_MAGIC))
    file.seek(0)
    remedy = "save the model with skops.io.dump(model, path)"
    if magic != _ZIP_MAGIC:
        raise failures.StartFailure(
            failures.MODEL_FORMAT_REFUSED,
            f"{path} is not a skops file; pickle and joblib files are refused because loading one"
            f" can run any code; {remedy}.",
        )
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            expanded = sum(info.file_size for info in archive.infolist())
    except zipfile.BadZipFile as exc:
        raise failures.StartFailure(
            failures.MODEL_LOAD_FAILED, f"{path} is damaged or cut off ({exc}); {remedy} and upload it again."
        ) from exc
    if "schema.json" not in names:
        raise failures.StartFailure(
            failures.MODEL_FORMAT_REFUSED, f"{path} is a zip file, but not one that skops wrote; {remedy}."
        )
    size = file.seek(0, 2)
    file.seek(0)
    if expanded > _MAX_EXPANSION * size:
        raise failures.StartFailure(
            failures.MODEL_FORMAT_REFUSED,
            f"{path} would expand from {size} to {expanded} bytes, which no trained model does; {remedy}.",
        )


def _load_skops(path: Path, file: BinaryIO, trusted_types: tuple[str, ...]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", InconsistentVersionWarning)
            estimator = skops.io.load(file, trusted=[*trees.TYPES, *trusted_types])
        trees.check(estimator)
    except UntrustedTypesFoundException as exc:
        found = [t for t in _untrusted(file) if t not in trusted_types]
        raise failures.StartFailure(
            failures.MODEL_FORMAT_REFUSED,
            f"{path} holds types that are not trusted: {', '.join(found) or exc};"
            " allow them with --trusted-type if you have reviewed their code.",
        ) from exc
    except trees.UnsoundTreeError as exc:
        raise failures.StartFailure(
            failures.MODEL_FORMAT_REFUSED, f"{path} holds a tree that scikit-learn did not make: {exc}."
        ) from exc
    except InconsistentVersionWarning as exc:
        raise failures.StartFailure(
            failures.LIBRARY_VERSION_SKEW,
            f"{path} was trained with scikit-learn {exc.original_sklearn_version}, but this server runs"
            f" {exc.current_sklearn_version}; train it again with that version or use a server image that has"
            f" {exc.original_sklearn_version}.",
        ) from exc
    except MemoryError as exc:
        raise failures.StartFailure(
            failures.MODEL_LOAD_FAILED, f"{path} needs more memory than there is; raise the memory limit."
        ) from exc
    except Exception as exc:
        raise failures.StartFailure(
            failures.MODEL_LOAD_FAILED,
            f"{path} cannot be loaded: {type(exc).__name__}: {exc}; check that it loads with skops.io.load here.",
        ) from exc
    return estimator


def _untrusted(file: BinaryIO) -> list[str]:
    file.seek(0)
    try:
        return [t for t in skops.io.get_untrusted_types(file=file) if t not in trees.TYPES]
    except Exception:  # noqa: BLE001 - only a nicer message depends on it
        return []


def _one_thread(estimator: Any) -> None:
    """Sets every `n_jobs` to 1: a batch is predicted by the one worker thread.

    Pods have small CPU limits; starting joblib's threads for one row costs more than
    the row, and threads beyond the limit only get throttled.
    """
    try:
        parameters = estimator.get_params(deep=True)
    except (AttributeError, TypeError, ValueError):
        return
    parallel = {k: 1 for k, v in parameters.items() if k.rpartition("__")[2] == "n_jobs" and v not in (None, 1)}
    if parallel:
        estimator.set_params(**parallel)
        _log.info("n_jobs was set to 1 in the loaded model", extra={"parameters": sorted(parallel)[:10]})
    # A fitted meta-estimator holds clones of its parameters, which kept theirs.
    for part in _fitted_parts(estimator):
        if getattr(part, "n_jobs", None) not in (None, 1):
            part.n_jobs = 1


def _fitted_parts(estimator: Any) -> list[Any]:
    parts = [
        *(part for _, part, *_ in getattr(estimator, "transformers_", ())),
        *getattr(estimator, "named_estimators_", {}).values(),
        getattr(estimator, "best_estimator_", None),
    ]
    return [part for part in parts if hasattr(part, "get_params")]
