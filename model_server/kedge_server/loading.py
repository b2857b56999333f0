"""Loads a model that has proved to be the one that was declared. Refuses everything else.

The file is opened once: what was hashed is what is loaded, also when the file is
replaced in between.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import lzma
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted
from skops.io.exceptions import UntrustedTypesFoundException

from kedge_server import bounds, failures, packages, signature, soundness, trees

_log = logging.getLogger(__name__)

_ZIP_MAGIC = b"PK\x03\x04"
# skops keeps arrays uncompressed unless asked, and even zlib at its best gains far
# less than this on trained numbers: more means a file made to fill the memory.
_MAX_EXPANSION = 200


# What skops does not know but scikit-learn's common estimators hold. Each was read: they
# are plain Python objects over arrays that numpy checks, or functions that only fitting
# calls. Neighbours' trees (KDTree, BallTree) are not here, since compiled code follows
# their indices unchecked.
REVIEWED_TYPES = (
    "numpy.dtype",
    "numpy.mean",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._mutual_info.mutual_info_classif",
    "sklearn.feature_selection._mutual_info.mutual_info_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Matern",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.RationalQuadratic",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict.

    Attributes:
        estimator: The fitted scikit-learn estimator.
        signature: What it takes and gives.
        digest: sha256 of the file, or of the package's manifest, in hex.
        package: The package that it came in; None for a bare file.
    """

    estimator: Any
    signature: signature.Signature
    digest: str
    package: packages.Package | None = None


def load(
    path: Path, sha256: str | None = None, trusted_types: tuple[str, ...] = (), *, allow_version_skew: bool = False
) -> LoadedModel:
    """Checks the digest of the skops file or package at `path`, then loads it.

    Raises:
        StartFailure: ModelFetchFailed, ModelDigestMismatch, ModelFormatRefused,
            LibraryVersionSkew or ModelLoadFailed.
    """
    if not path.is_dir():
        return _load_file(path, sha256, trusted_types, allow_version_skew=allow_version_skew)
    package = packages.read(path, sha256)
    manifest = package.manifest
    refused = [t for t in manifest.trusted_types if t not in trusted_types]
    if refused:
        raise _untrusted(path, refused)
    _check_versions(path, manifest.libraries, allow_version_skew=allow_version_skew)
    model = _load_file(
        path / packages.MODEL,
        manifest.files[packages.MODEL],
        trusted_types,
        allow_version_skew=allow_version_skew,
    )
    names = [column.name for column in model.signature.columns]
    if names != [column.name for column in manifest.columns]:
        raise failures.StartFailure(
            failures.MODEL_LOAD_FAILED, f"The features of {path} are not those of its manifest; pack the model again."
        )
    described = dataclasses.replace(model.signature, columns=manifest.columns)
    return LoadedModel(model.estimator, described, manifest.digest, package)


def _check_versions(path: Path, libraries: dict[str, str], *, allow_version_skew: bool) -> None:
    trained, here = libraries.get("scikit-learn", "unknown"), packages.libraries()["scikit-learn"]
    if trained == here:
        return
    if not allow_version_skew:
        raise _skew(path, trained, here)
    _log.warning("another scikit-learn than in training", extra={"trained": trained, "here": here})


def _load_file(
    path: Path, sha256: str | None, trusted_types: tuple[str, ...], *, allow_version_skew: bool
) -> LoadedModel:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            failures.check_digest(str(path), digest, sha256)
            file.seek(0)
            _check_format(path, file)
            estimator = _load_skops(path, file, trusted_types, allow_version_skew=allow_version_skew)
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
            expanded = sum(_expanded(archive, info) for info in archive.infolist())
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as exc:
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


def _expanded(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Returns the size of an entry, and of what is in it when it is packed again, as sparse matrices are."""
    with archive.open(info) as entry:
        if entry.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            return info.file_size
        with zipfile.ZipFile(entry) as inner:
            return info.file_size + sum(part.file_size for part in inner.infolist())


def _load_skops(path: Path, file: BinaryIO, trusted_types: tuple[str, ...], *, allow_version_skew: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not allow_version_skew:
                warnings.simplefilter("error", InconsistentVersionWarning)
            estimator = skops.io.load(file, trusted=[*trees.TYPES, *REVIEWED_TYPES, *trusted_types])
            soundness.check(estimator)
    except UntrustedTypesFoundException as exc:
        found = [t for t in untrusted_types(file) if t not in trusted_types]
        raise _untrusted(path, found or [str(exc)]) from exc
    except bounds.UnsoundModelError as exc:
        raise failures.StartFailure(
            failures.MODEL_FORMAT_REFUSED, f"{path} holds a model that scikit-learn did not make: {exc}."
        ) from exc
    except InconsistentVersionWarning as exc:
        raise _skew(path, exc.original_sklearn_version, exc.current_sklearn_version) from exc
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


def _untrusted(path: Path, types: list[str]) -> failures.StartFailure:
    return failures.StartFailure(
        failures.MODEL_FORMAT_REFUSED,
        f"{path} holds types that are not trusted: {', '.join(types)};"
        " allow them with --trusted-type if you have reviewed their code.",
    )


def _skew(path: Path, trained: str, here: str) -> failures.StartFailure:
    return failures.StartFailure(
        failures.LIBRARY_VERSION_SKEW,
        f"{path} was trained with scikit-learn {trained}, but this server runs {here}; train it again with that"
        f" version, use a server image that has {trained}, or allow it with --allow-version-skew.",
    )


def untrusted_types(file: BinaryIO) -> list[str]:
    """Returns the types in a skops file that somebody has to name before it is loaded."""
    file.seek(0)
    return [t for t in skops.io.get_untrusted_types(file=file) if t not in (*trees.TYPES, *REVIEWED_TYPES)]


def _one_thread(estimator: Any) -> None:
    """Sets every `n_jobs` to 1: a batch is predicted by the one worker thread.

    Pods have small CPU limits; starting joblib's threads for one row costs more than
    the row, and threads beyond the limit only get throttled. Meta-estimators predict by
    fitted clones of their parameters, so those count and not the parameters. k-means
    keeps the number of processors that it was trained on.
    """
    changed = set()
    for part in soundness.parts(estimator):
        for name in ("n_jobs", "_n_threads"):
            if hasattr(part, "get_params") and vars(part).get(name) not in (None, 1):
                setattr(part, name, 1)
                changed.add(type(part).__name__)
    if changed:
        _log.info("n_jobs was set to 1 in the loaded model", extra={"estimators": sorted(changed)[:10]})
