"""People's levers: annotations of a ModelDeployment, so that Git can carry them."""

import dataclasses
from collections.abc import Mapping

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

    @classmethod
    def read(cls, annotations: Mapping[str, str]) -> "Levers":
        """Returns what the annotations ask for."""
        return cls(
            approve=annotations.get(APPROVE, ""),
            abort=annotations.get(ABORT, ""),
            retry=annotations.get(RETRY, ""),
        )

    def approves(self, revision: str, step: int) -> bool:
        """Tells whether the step of this index, from 0, is approved."""
        return self.approve == f"{revision}/{step + 1}"
