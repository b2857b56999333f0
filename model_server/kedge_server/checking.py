"""Tells whether a model can be served here, without serving it."""

from __future__ import annotations

import dataclasses
from typing import Any

from kedge_server import packages, proving
from kedge_server.settings import Compile, Settings


def check(settings: Settings) -> dict[str, Any]:
    """Loads and proves a model like `serve` does, and returns what there is to know about it.

    Raises:
        StartFailure: What `serve` would end with.
    """
    model, predictor = proving.load_and_prove(dataclasses.replace(settings, compile=Compile.AUTO))
    compiled = predictor.compiled
    assert compiled is not None  # noqa: S101 - it was asked for
    package = model.package
    return {
        "path": str(settings.model_path),
        "digest": model.digest,
        "estimator": type(model.estimator).__name__,
        "trustedTypes": list(package.manifest.trusted_types if package else settings.trusted_types),
        "libraries": {
            "here": packages.libraries(),
            "training": package.manifest.libraries if package else None,
        },
        "inputs": [
            {
                "name": column.name,
                "kind": column.kind.value,
                "datatype": column.datatype,
                "allowMissing": column.allow_missing,
            }
            for column in model.signature.columns
        ],
        "outputs": [dataclasses.asdict(output) for output in model.signature.outputs],
        "goldenRows": len(package.golden.rows[0]) if package else 0,
        "referenceRows": package.profile.rows if package else 0,
        "calibrated": package.profile.calibrated if package else None,
        "compiled": {"methods": list(compiled.methods), "reason": compiled.reason.value, "message": compiled.why},
    }
