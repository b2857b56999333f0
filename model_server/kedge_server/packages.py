"""The directory in which a model travels: what is in it, and proof that it arrived whole.

```
kedge.json    the manifest: names, versions, signature, and the sha256 of every other file
model.skops   the model
profile.json  what the reference data looked like
golden.json   rows, and what the model answered for them when it was packed
```

The package's digest is the sha256 of `kedge.json`, which covers all the rest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sklearn
import skops

from kedge_server import failures, fetching, profiles, protocol
from kedge_server.signature import Column, Kind, OutputTensor

FORMAT_VERSION = 1
MANIFEST = fetching.MANIFEST
FILES = MODEL, PROFILE, GOLDEN = fetching.PACKAGE_FILES
# Larger than any manifest or profile that the format allows to be useful.
_MAX_JSON_BYTES = 16 << 20
# What a value of each kind is in JSON, when it is not missing.
_VALUES = {Kind.NUMBER: (int, float), Kind.STRING: (str,), Kind.ANY: (int, float, str)}
_Parsed = TypeVar("_Parsed")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of `kedge.json`.

    Attributes:
        name: Of the model.
        version: Of the model.
        libraries: Versions with which it was packed.
        trusted_types: Types that it needs besides those trusted by default.
        columns: Its features.
        outputs: What its methods give, for the readers of the file; the server sees for itself.
        files: sha256 of each file, in hex.
        digest: sha256 of the manifest itself.
    """

    name: str
    version: str
    libraries: dict[str, str]
    trusted_types: tuple[str, ...]
    columns: tuple[Column, ...]
    files: dict[str, str]
    outputs: tuple[OutputTensor, ...] = ()
    digest: str = ""

    def to_json(self) -> bytes:
        """Returns the file's content; the same manifest gives the same bytes."""
        document = {
            "formatVersion": FORMAT_VERSION,
            "name": self.name,
            "version": self.version,
            "libraries": self.libraries,
            "trustedTypes": list(self.trusted_types),
            "inputs": [_column_to_json(column) for column in self.columns],
            "outputs": [{"name": o.name, "datatype": o.datatype, "shape": [-1, *o.shape]} for o in self.outputs],
            "files": self.files,
        }
        return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


@dataclasses.dataclass(frozen=True)
class GoldenRows:
    """Rows with the answers of training time.

    Attributes:
        rows: One list of values a feature, in the order of the signature.
        answers: What each method gave.
        relative_tolerance: By how much a number may differ, relative to itself.
        absolute_tolerance: And besides that.
    """

    rows: tuple[list[Any], ...]
    answers: dict[str, list[Any]]
    relative_tolerance: float = 1e-6
    absolute_tolerance: float = 1e-9

    def to_json(self) -> dict[str, Any]:
        """Returns the file's content."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Package:
    """A package whose files are those that its manifest names."""

    folder: Path
    manifest: Manifest
    profile: profiles.Profile
    golden: GoldenRows


def libraries() -> dict[str, str]:
    """Returns the versions that decide what a model answers."""
    return {
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "skops": skops.__version__,
    }


def read(folder: Path, sha256: str | None) -> Package:
    """Reads a package and checks every digest in it, the manifest's first, and that its files agree.

    Raises:
        StartFailure: ModelFetchFailed, ModelDigestMismatch, ModelLoadFailed.
    """
    try:
        content = _read(folder / MANIFEST)
        digest = hashlib.sha256(content).hexdigest()
        failures.check_digest(str(folder / MANIFEST), digest, sha256)
        manifest = _parsed(folder / MANIFEST, lambda: parse_manifest(content, digest))
        for name, expected in manifest.files.items():
            with (folder / name).open("rb") as file:
                failures.check_digest(str(folder / name), hashlib.file_digest(file, "sha256").hexdigest(), expected)
        profile = _parsed(folder / PROFILE, lambda: _profile(_read(folder / PROFILE), manifest.columns))
        golden = _parsed(folder / GOLDEN, lambda: _golden(_read(folder / GOLDEN), manifest.columns))
    except OSError as exc:
        raise failures.StartFailure(
            failures.MODEL_FETCH_FAILED,
            f"The package {folder} cannot be read: {exc.strerror or exc}; check the model's URI or mount.",
        ) from exc
    return Package(folder, manifest, profile, golden)


def _parsed(path: Path, parse: Callable[[], _Parsed]) -> _Parsed:
    """Names the file that is damaged: JSON of another form can raise whatever there is."""
    try:
        return parse()
    except OSError:
        raise
    except Exception as exc:
        what = exc if isinstance(exc, ValueError) else f"{type(exc).__name__}: {exc}"
        raise failures.StartFailure(
            failures.MODEL_LOAD_FAILED, f"{path} is damaged: {what}; pack the model again."
        ) from exc


def _profile(content: bytes, columns: tuple[Column, ...]) -> profiles.Profile:
    profile = profiles.Profile.from_json(json.loads(content))
    names = {column.name for column in columns}
    for bins in (*profile.features, *profile.further):
        if bins.name not in names:
            raise ValueError(f'it has a feature "{bins.name}", which is none of the model\'s')
    return profile


def _golden(content: bytes, columns: tuple[Column, ...]) -> GoldenRows:
    golden = _golden_from_json(json.loads(content))
    if len(golden.rows) != len(columns):
        raise ValueError(f"its rows have {len(golden.rows)} features instead of {len(columns)}")
    count = len(golden.rows[0])
    for column, values in zip(columns, golden.rows, strict=True):
        if not values or len(values) != count:
            raise ValueError(f'feature "{column.name}" has {len(values)} rows instead of {max(count, 1)}')
        for value in values:
            if value is not None and not isinstance(value, _VALUES[column.kind]):
                raise ValueError(f'feature "{column.name}" is a {column.kind.value}, but a row has {value!r:.60}')
    for name, answer in golden.answers.items():
        if np.array(answer).shape[:1] != (count,):
            raise ValueError(f"{name} has {len(answer)} answers for {count} rows")
    return golden


def parse_manifest(content: bytes, digest: str) -> Manifest:
    """Reads the content of `kedge.json`.

    Raises:
        ValueError, KeyError, TypeError: It is damaged or of a later format.
    """
    document = json.loads(content)
    if document["formatVersion"] != FORMAT_VERSION:
        raise ValueError(f"its format version is {document['formatVersion']!r} and not {FORMAT_VERSION}")
    files = {str(name): str(value) for name, value in document["files"].items()}
    if sorted(files) != sorted(FILES):
        raise ValueError(f"it lists {', '.join(sorted(files))} instead of {', '.join(sorted(FILES))}")
    return Manifest(
        name=str(document["name"]),
        version=str(document["version"]),
        libraries={str(k): str(v) for k, v in document["libraries"].items()},
        trusted_types=tuple(str(t) for t in document["trustedTypes"]),
        columns=tuple(_column_from_json(c) for c in document["inputs"]),
        files=files,
        digest=digest,
    )


def golden_request(golden: GoldenRows, columns: tuple[Column, ...]) -> tuple[protocol.Array, ...]:
    """Returns the golden rows as one array a feature."""
    return tuple(
        np.array(values, dtype=object)
        if column.kind is not Kind.NUMBER
        else np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        for values, column in zip(golden.rows, columns, strict=True)
    )


def differences(golden: GoldenRows, method: str, array: protocol.Array) -> list[int]:
    """Returns the golden rows for which `method` now answers otherwise."""
    expected = np.array(golden.answers[method], dtype=None if array.dtype.kind == "f" else object)
    return np.flatnonzero(differing(golden, expected, array)).tolist()


def differing(golden: GoldenRows, expected: protocol.Array, found: protocol.Array) -> protocol.Array:
    """Returns a mask (n_rows,) of the rows in which two answers differ beyond the tolerance."""
    if expected.shape != found.shape or (found.dtype.kind == "f" and expected.dtype.kind not in "fiu"):
        return np.ones(len(found), dtype=np.bool_)
    if found.dtype.kind == "f":
        same: protocol.Array = np.isclose(
            found,
            expected.astype(np.float64),
            rtol=golden.relative_tolerance,
            atol=golden.absolute_tolerance,
            equal_nan=True,
        )
    else:
        same = np.asarray(found == expected)
    return np.logical_not(same.reshape(len(found), -1).all(axis=1))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_MAX_JSON_BYTES + 1)
    if len(content) > _MAX_JSON_BYTES:
        raise ValueError(f"{path.name} has more than {_MAX_JSON_BYTES} bytes")
    return content


def _golden_from_json(document: dict[str, Any]) -> GoldenRows:
    return GoldenRows(
        rows=tuple(list(values) for values in document["rows"]),
        answers={str(k): list(v) for k, v in document["answers"].items()},
        relative_tolerance=float(document["relative_tolerance"]),
        absolute_tolerance=float(document["absolute_tolerance"]),
    )


def _column_to_json(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind.value,
        "datatype": column.datatype,
        "shape": [-1],
        "allowMissing": column.allow_missing,
        "example": column.example,
    }


def _column_from_json(document: dict[str, Any]) -> Column:
    return Column(
        name=str(document["name"]),
        kind=Kind(document["kind"]),
        example=document.get("example"),
        datatype=document.get("datatype"),
        allow_missing=document.get("allowMissing"),
    )
