"""People's levers: annotations of a ModelDeployment, so that Git can carry them."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from kedge.api.schemas import GROUP

APPROVE = f"{GROUP}/approve"
ABORT = f"{GROUP}/abort"
RETRY = f"{GROUP}/retry"


@dataclasses.dataclass(frozen=True, slots=True)
class Levers:
    """What people have asked for."""

    approve: str = ""
    """`REVISION/STEP`, with steps counted from 1."""
    abort: str = ""
    """The revision to take back."""
    retry: str = ""
    """Any new value asks for the rejected revision to be tried again, once."""

    approved_by: str = ""
    """Field manager that wrote the approval. The API server keeps no name of a user."""
    aborted_by: str = ""
    """Field manager that wrote the abort."""

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> "Levers":
        """Returns what the annotations in an object's metadata ask for, and who wrote them."""
        annotations = metadata.get("annotations") or {}
        entries = metadata.get("managedFields") or []
        return cls(
            approve=annotations.get(APPROVE, ""),
            abort=annotations.get(ABORT, ""),
            retry=annotations.get(RETRY, ""),
            approved_by=_manager(entries, APPROVE),
            aborted_by=_manager(entries, ABORT),
        )

    def approves(self, revision: str, step: int) -> bool:
        """Tells whether the step of this index, from 0, is approved."""
        return self.approve == f"{revision}/{step + 1}"


def _manager(entries: Iterable[Mapping[str, Any]], annotation: str) -> str:
    """Returns the field manager that owns an annotation, or nothing."""
    for entry in entries:
        owned = (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:annotations", {})
        if f"f:{annotation}" in owned:
            return str(entry.get("manager", ""))
    return ""
