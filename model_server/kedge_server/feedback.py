"""Joins ground truth that comes later with what was predicted, in bounded memory.

What a model got wrong is known when the label comes, seconds or days later. A client
that gave its request an `id` can send the label for that id; predictions are kept for
as long as there is room. One that keeps its predictions itself sends both, which needs
no memory here and works across restarts and pods.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import logging
from typing import Any

import orjson
import sklearn.base

from kedge_server import protocol
from kedge_server.errors import ClientError

_log = logging.getLogger(__name__)

# With usual ids some 300 bytes an entry, 30 MB in all; with the longest that are taken up to 130 MB.
MAX_ROWS = 100_000
# Of one body, so that it does not hold up the event loop for longer than some milliseconds.
_MAX_LABELS = 10_000


class Outcome(enum.Enum):
    """What a label says about a prediction; a label of `kedge_server_feedback_total`."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNMATCHED = "unmatched"


@dataclasses.dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much a predicted number may miss its label and be correct; the wider one counts.

    Attributes:
        absolute: In the label's own unit.
        percent: Of the label, without its sign. A label of 0 leaves nothing of it.
    """

    absolute: float = 0.0
    percent: float = 0.0

    def admits(self, predicted: float, label: float) -> bool:
        """Tells whether `predicted` is near enough; a NaN never is."""
        return abs(predicted - label) <= max(self.absolute, self.percent / 100 * abs(label))


EXACT = Tolerance()


def tolerance_for(estimator: Any, declared: Tolerance) -> Tolerance:
    """Returns `declared` for a regressor, and none for others: a class that is a number is right or wrong."""
    if declared == EXACT or sklearn.base.is_regressor(estimator):
        return declared
    _log.warning("the model is no regressor, so labels are compared without the feedback tolerance")
    return EXACT


class Feedback:
    """Keeps predictions by request id and compares labels with them.

    Args:
        max_rows: Predictions that are kept; the oldest go first.
        tolerance: Between a predicted number and its label.
    """

    def __init__(self, max_rows: int = MAX_ROWS, tolerance: Tolerance = EXACT) -> None:
        self._max_rows = max_rows
        # Known once the model is.
        self.tolerance = tolerance
        self._kept: collections.OrderedDict[str, list[Any]] = collections.OrderedDict()
        self._rows = 0
        self.counts = dict.fromkeys(Outcome, 0)

    def remember(self, request_id: str, outputs: list[protocol.Output]) -> None:
        """Keeps what `predict` gave for the request with that id."""
        for name, array in outputs:
            if name == "predict" and array.ndim == 1 and len(array) <= self._max_rows:
                self._forget(request_id)
                self._kept[request_id] = array.tolist()
                self._rows += len(array)
                break
        while self._rows > self._max_rows:
            _, oldest = self._kept.popitem(last=False)
            self._rows -= len(oldest)

    def receive(self, body: bytes) -> dict[str, int]:
        """Takes one item of feedback, or a list of them, and tells how many labels were what.

        An item is `{"id", "label"}`, `{"id", "labels"}` with one label a row, or
        `{"prediction", "label"}`. An id is matched once.

        Raises:
            ClientError: The body is not feedback; nothing of it is counted then.
        """
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise ClientError(f"the body is not JSON: {exc}") from exc
        items = document if isinstance(document, list) else [document]
        if not 0 < len(items) <= _MAX_LABELS:
            raise ClientError(f"feedback must be 1 to {_MAX_LABELS} items")
        labels = sum(_checked_labels(item, position) for position, item in enumerate(items))
        if labels > _MAX_LABELS:
            raise ClientError(f"feedback has {labels} labels; at most {_MAX_LABELS} are taken at once", 413)
        found = dict.fromkeys(Outcome, 0)
        for item in items:
            for outcome in self._outcomes(item):
                found[outcome] += 1
        for outcome, count in found.items():
            self.counts[outcome] += count
        return {outcome.value: count for outcome, count in found.items()}

    def _outcomes(self, item: dict[str, Any]) -> list[Outcome]:
        labels = item["labels"] if "labels" in item else [item["label"]]
        if "prediction" in item:
            return [self._compare(item["prediction"], labels[0])]
        predicted = self._kept.get(item["id"])
        if predicted is None or len(predicted) != len(labels):
            return [Outcome.UNMATCHED] * len(labels)
        self._forget(item["id"])
        return [self._compare(p, label) for p, label in zip(predicted, labels, strict=True)]

    def _compare(self, predicted: Any, label: Any) -> Outcome:
        if isinstance(predicted, (int, float)) and isinstance(label, (int, float)):
            correct = self.tolerance.admits(predicted, label)
        else:
            correct = str(predicted) == str(label)
        return Outcome.CORRECT if correct else Outcome.WRONG

    def _forget(self, request_id: str) -> None:
        self._rows -= len(self._kept.pop(request_id, ()))


def _checked_labels(item: Any, position: int) -> int:
    """Returns how many labels an item has.

    Raises:
        ClientError: It is not feedback.
    """
    where = f"item {position}"
    if not isinstance(item, dict):
        raise ClientError(f"{where} must be an object")
    if ("id" in item) == ("prediction" in item):
        raise ClientError(f"{where} needs either an id or a prediction")
    if ("label" in item) == ("labels" in item):
        raise ClientError(f"{where} needs either a label or labels")
    if "id" in item and not isinstance(item["id"], str):
        raise ClientError(f"{where}: id must be a string")
    labels = item.get("labels", [item.get("label")])
    if not isinstance(labels, list) or not labels or ("labels" in item and "prediction" in item):
        raise ClientError(f"{where}: labels must be a list with one label a row, and belongs to an id")
    if len(labels) <= _MAX_LABELS and not all(
        isinstance(v, (str, int, float)) for v in (*labels, item.get("prediction", 0))
    ):
        raise ClientError(f"{where}: labels and predictions must be strings, numbers or booleans")
    return len(labels)
