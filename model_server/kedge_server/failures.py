"""Reasons for which a process ends before it serves, and how it tells Kubernetes.

The kubelet copies the termination log into the pod's status, where the operator
(and anybody with kubectl) reads it. Reasons are a fixed vocabulary: the operator
puts them into conditions, so a new one is an API change.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

MODEL_DIGEST_MISMATCH = "ModelDigestMismatch"  # the bytes are not those that were declared
MODEL_FETCH_FAILED = "ModelFetchFailed"  # the artifact cannot be read from where it should be
MODEL_FORMAT_REFUSED = "ModelFormatRefused"  # a format or a type that could run foreign code
MODEL_LOAD_FAILED = "ModelLoadFailed"  # the right format, but no usable model in it
LIBRARY_VERSION_SKEW = "LibraryVersionSkew"  # trained with another scikit-learn
WARM_UP_FAILED = "WarmUpFailed"  # loaded, but raises at its first prediction
GOLDEN_ROWS_MISMATCH = "GoldenRowsMismatch"  # answers otherwise than it did in training

# The kubelet keeps 4096 bytes of a termination message.
_MAX_MESSAGE_CHARS = 3000


class StartFailure(Exception):  # noqa: N818 - it is the outcome of a start, not an error of the code
    """The package cannot be served as it is; trying again would not help.

    Args:
        reason: One of this module's constants.
        message: One sentence that names what is wrong and the remedy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = " ".join(message.split())[:_MAX_MESSAGE_CHARS]

    def to_json(self) -> str:
        """Returns the single line that goes to the termination log."""
        return json.dumps({"reason": self.reason, "message": self.message}, ensure_ascii=False)


def report(failure: StartFailure, path: Path | None) -> bool:
    """Writes `failure` to the termination log at `path`; tells whether that worked.

    Outside a pod the file usually does not exist and must not be created (it would
    be a stray file in /dev), so an existing, writable file is required.
    """
    if path is None or not path.is_file() or not os.access(path, os.W_OK):
        return False
    try:
        path.write_text(failure.to_json() + "\n", encoding="utf-8")
    except OSError:
        return False
    return True


def check_digest(what: str, found: str, declared: str | None) -> None:
    """Compares two hex digests.

    Raises:
        StartFailure: ModelDigestMismatch, when one is declared and differs.
    """
    if declared is not None and found != declared.lower():
        raise StartFailure(
            MODEL_DIGEST_MISMATCH,
            f"{what} has sha256 {found}, but {declared.lower()} was declared; "
            "declare the digest of the file that you mean to serve, or restore that file.",
        )
