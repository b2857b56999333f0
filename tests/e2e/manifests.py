"""Manifests of ModelDeployments, made from a plain one by naming what is different."""

import copy
import json
from collections.abc import Mapping
from typing import Any

ABSENT = object()
"""Takes a field out of the plain manifest."""

SHA256 = "9f2c" * 16


def model_deployment(changes: Mapping[str, Any], *, name: str = "churn", namespace: str) -> str:
    """Returns a manifest whose spec differs from a plain one by `changes`: dotted paths and their values."""
    spec: dict[str, Any] = {"model": {"uri": "https://models.test/churn.skops", "sha256": SHA256}}
    for path, value in changes.items():
        *parents, last = path.split(".")
        below = spec
        for parent in parents:
            below = below.setdefault(parent, {})
        if value is ABSENT:
            del below[last]
        else:
            below[last] = copy.deepcopy(value)
    return json.dumps(
        {
            "apiVersion": "kedge.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
    )


def objective(**fields: Any) -> dict[str, Any]:
    """Returns an availability objective that differs from a plain one by `fields`; ABSENT takes one out."""
    plain = {"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99.5"}
    return {name: value for name, value in {**plain, **fields}.items() if value is not ABSENT}
