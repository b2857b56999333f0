"""Tells whether an object already is what its manifest says. Pure."""

from collections.abc import Mapping
from typing import Any

EXACT_FIELDS = frozenset({"selector"})
"""Maps in which a key that the manifest does not name is a difference."""


def fulfils(existing: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Tells whether every field of the manifest stands in the object with the same value.

    Fields that only the object has are the API server's defaults or other managers' business.
    """
    return all(_same(existing.get(key), wanted, exact=key in EXACT_FIELDS) for key, wanted in manifest.items())


def _same(present: Any, wanted: Any, *, exact: bool) -> bool:
    if wanted in ({}, [], None):
        return present in ({}, [], None)
    if isinstance(wanted, Mapping):
        if not isinstance(present, Mapping) or (exact and present.keys() != wanted.keys()):
            return False
        return fulfils(present, wanted)
    if isinstance(wanted, list):
        return (
            isinstance(present, list)
            and len(present) == len(wanted)
            and all(_same(one, other, exact=False) for one, other in zip(present, wanted, strict=True))
        )
    return bool(present == wanted)
