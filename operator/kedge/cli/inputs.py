"""Reads objects from files as `kubectl get --output yaml` or json prints them."""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pydantic
import yaml

from kedge.api import records, schemas
from kedge.api.records import Record
from kedge.cli.errors import CommandError
from kedge.kubernetes_api import ObjectDict


class _Loader(yaml.SafeLoader):
    """Reads times as the texts that they are in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def objects(path: str) -> list[ObjectDict]:
    """Returns the objects in a file, or from standard input for `-`; lists are taken apart.

    Raises:
        CommandError: It cannot be read, or holds no objects.
    """
    try:
        text = sys.stdin.read() if path == "-" else pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"cannot read {path}: {reason}") from error
    try:
        # A subclass of the safe loader: it makes nothing but plain values.
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise CommandError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    found = [item for document in documents if document is not None for item in _taken_apart(path, document)]
    if not found:
        raise CommandError(f"{path} holds no object")
    return found


def record(path: str, item: ObjectDict) -> tuple[str, Record]:
    """Returns the name and the content of a RolloutRecord.

    Raises:
        CommandError: It is none, or not one that this Kedge understands.
    """
    name = (item.get("metadata") or {}).get("name") or path
    if (item.get("apiVersion"), item.get("kind")) != (schemas.API_VERSION, records.KIND):
        kind = f"{item.get('apiVersion')} {item.get('kind')}"
        raise CommandError(f"{name} is no RolloutRecord of {schemas.API_VERSION}, but {kind}")
    try:
        return name, Record.model_validate(item.get("record"))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("record", *first["loc"]))
        raise CommandError(f"RolloutRecord {name} is damaged: {where}: {first['msg']}") from error


def _taken_apart(path: str, document: Any) -> Iterator[ObjectDict]:
    if not isinstance(document, dict) or "kind" not in document:
        raise CommandError(f"{path} holds no Kubernetes object: it has no kind")
    if str(document["kind"]).endswith("List"):
        for item in document.get("items") or []:
            yield from _taken_apart(path, item)
    else:
        yield document
