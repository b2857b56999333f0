"""Turns a fitted estimator into plain numpy that gives the same answers.

Almost all of a one-row call to scikit-learn is validation and dispatch. What is left
when they are taken away is written out here for the estimators that people serve
most: the same operations on the same numbers in the same order, so that an answer is
the same to the last bit, and not an approximation in another number format.

A function made here answers for rows in which it can be sure of that, and returns None
for others: numbers that are missing or infinite, or that overflow on the way. Those
rows go to scikit-learn, so whatever it refuses it still refuses, in its own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kedge_server import finals, forests
from kedge_server.protocol import Array
from kedge_server.signature import Layout, Signature
from kedge_server.stages import Imputer, NotCompilableError, Step, name_of, plain, transformation


def compiled(estimator: Any, signature: Signature) -> dict[str, finals.Function]:
    """Returns those methods of `estimator` that can be compiled, by name.

    Raises:
        NotCompilableError: There are none.
    """
    if signature.layout is not Layout.MATRIX or not signature.numeric:
        raise NotCompilableError("its rows are not all numbers in one array")
    try:
        steps, last = _parts(estimator)
        functions = {name: _after(steps, f) for name, f in finals.methods(last).items() if name in signature.methods}
    except forests.TooLargeError as exc:
        raise NotCompilableError(str(exc)) from exc
    if not functions:
        raise NotCompilableError(f"no method of {type(estimator).__name__} is known")
    return functions


def _parts(estimator: Any) -> tuple[list[Step], Any]:
    """Returns the transformations before the last step, and that step."""
    if name_of(estimator) in ("GridSearchCV", "RandomizedSearchCV"):
        return _parts(estimator.best_estimator_)
    if name_of(estimator) != "Pipeline":
        return [], estimator
    stages = [stage for _, stage in estimator.steps if stage not in (None, "passthrough")]
    if not stages:
        raise NotCompilableError("its pipeline has no steps")
    inner, last = _parts(stages[-1])
    return [*map(transformation, stages[:-1]), *inner], last


def _after(steps: Sequence[Step], function: finals.Function) -> finals.Function:
    if not steps:
        return function

    def call(rows: Array) -> Array | None:
        for step in steps:
            # scikit-learn looks before each step: what a number that grew too large would
            # turn into may be dropped or clipped by a later one.
            if not isinstance(step, Imputer) and not plain(rows):
                return None
            rows = step(rows)
        return function(rows)

    return call
