"""Reads the manifests under `examples/` and puts in the images that were built here."""

import json
import pathlib
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PUBLISHED = {"operator": "kedge-operator:0.1.0", "modelServer": "kedge-model-server:0.1.0"}
"""The images that the manifests name."""

Manifest = dict[str, Any]


def images() -> dict[str, str]:
    """Returns the references of the images that `hack.localcluster images` loaded into the node."""
    found: dict[str, str] = json.loads((ROOT / ".local" / "images.json").read_text())
    return found


def manifests(path: pathlib.Path) -> list[Manifest]:
    """Returns the manifests of a file, with the images that are in the node."""
    text = path.read_text()
    for name, reference in images().items():
        text = text.replace(PUBLISHED[name], reference)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest is not None]
