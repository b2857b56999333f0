"""JSON values compared: a canonical form, its digest, and what changed from one value to the next."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

DIGEST_DIGITS = 16
_LARGEST_WHOLE_FLOAT = 1e21
"""Above it the API server writes a whole float with an exponent, and it comes back as a float."""

Patch = dict[str, Any] | list[Any]
"""A change: `[]` is removed, `[value]` becomes this value, a dict changes what is inside by key or index."""


def canonical(value: Any) -> Any:
    """Returns a JSON value as the API server gives it back: keys sorted, and whole floats as integers."""
    kind = type(value)
    if kind is str or kind is int:  # Most of them: this is run over every status.
        return value
    if kind is dict:
        return {key: canonical(value[key]) for key in sorted(value)}
    if kind is list or kind is tuple:
        return [canonical(item) for item in value]
    if kind is float and value.is_integer() and abs(value) < _LARGEST_WHOLE_FLOAT:
        return int(value)
    return value


def digest(value: Any) -> str:
    """Returns a digest of a JSON value that has or has not been through the API server."""
    return sha256(canonical(value))[:DIGEST_DIGITS]


def sha256(value: Any) -> str:
    """Returns the SHA-256 over a value as JSON with sorted keys and no spaces, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def difference(before: Any, after: Any) -> Patch | None:
    """Returns what makes `after` of `before`, or None when they are the same, the order of keys included."""
    if isinstance(before, dict) and isinstance(after, dict):
        kept = [key for key in before if key in after]
        if list(after)[: len(kept)] != kept:
            return [after]
        changes: dict[str, Any] = {key: [] for key in before if key not in after}
        for key, value in after.items():
            changed = [value] if key not in before else difference(before[key], value)
            if changed is not None:
                changes[key] = changed
        return changes or None
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = ((index, difference(*pair)) for index, pair in enumerate(zip(before, after, strict=True)))
        return {str(index): changed for index, changed in pairs if changed is not None} or None
    return None if type(before) is type(after) and before == after else [after]


def changed(before: Any, patch: Patch | None) -> Any:
    """Returns `before` with the patch applied.

    Raises:
        ValueError: The patch does not fit.
    """
    if patch is None:
        return before
    if isinstance(patch, list):
        if len(patch) != 1:
            raise ValueError("a value was removed where there is none")
        return patch[0]
    try:
        if isinstance(before, list):
            items = list(before)
            for index, inner in patch.items():
                items[int(index)] = changed(items[int(index)], inner)
            return items
        fields = dict(before)
        for key, inner in patch.items():
            if inner == []:
                del fields[key]
            else:
                fields[key] = changed(fields.get(key), inner)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"a change does not fit what it changes: {error}") from error
    return fields


def differing(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields path and both values of every leaf that differs; what is absent is None."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differing(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            ours, theirs = (items[index] if index < len(items) else None for items in (before, after))
            yield from differing(ours, theirs, f"{path}[{index}]")
    elif canonical(before) != canonical(after):
        yield path, before, after
