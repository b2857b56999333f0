"""Answers by compiled functions, and holds a sample of the answers against scikit-learn.

A compiled form that was right on the golden rows can still be wrong somewhere else, so
some live rows are predicted both ways. Their users get scikit-learn's answer. The
first difference beyond the package's tolerance ends the compiled form for good: a
server that knows itself to be wrong must not go on. For one thread at a time.
"""

from __future__ import annotations

import enum
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kedge_server import packages
from kedge_server.finals import Function
from kedge_server.protocol import Array

_log = logging.getLogger(__name__)

Call = Callable[[Any], Any]

# One call in so many is checked: fewer than one in a hundred, so that scikit-learn's
# time does not show in the 99th percentile.
CALLS_A_CHECK = 128
# And no more than this share of the time is spent on it, which matters for forests.
TIME_SHARE = 0.01


class Reason(enum.Enum):
    """Why a model is not compiled; a label of `kedge_server_compiled_info`."""

    NONE = ""
    NO_GOLDEN_ROWS = "NoGoldenRows"
    UNKNOWN_ESTIMATOR = "UnknownEstimator"
    GOLDEN_ROWS_UNSURE = "GoldenRowsUnsure"
    GOLDEN_ROWS_DIFFER = "GoldenRowsDiffer"
    LIVE_ROWS_DIFFER = "LiveRowsDiffer"


class Compiled:
    """The compiled side of one model.

    Args:
        functions: Compiled methods, by name; empty when there is a `reason`.
        golden: Whose tolerance decides what a difference is.
        reason: Why nothing is compiled.
        why: The same for people.
        clock: Seconds that never go back.
        draw: A random number from 0 to 1, which picks the calls to check.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        golden: packages.GoldenRows | None = None,
        reason: Reason = Reason.NONE,
        why: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._functions = dict(functions)
        self._golden = golden
        self._clock = clock
        self._draw = draw
        self._next_check = -np.inf
        self.reason = reason
        self.why = why
        self.checked_rows = 0
        self.mismatched_rows = 0

    @property
    def methods(self) -> tuple[str, ...]:
        """Names the methods that are answered by compiled functions now."""
        return tuple(self._functions)

    def around(self, method: str, exact: Call) -> Call:
        """Returns `exact`, scikit-learn's method, behind its compiled function if there is one."""
        if method not in self._functions:
            return exact

        def call(rows: Array) -> Any:
            function = self._functions.get(method)
            if function is None:
                return exact(rows)
            try:
                with np.errstate(all="ignore"):
                    found = function(rows)
            except Exception as exc:  # noqa: BLE001 - scikit-learn can still answer
                self._give_up(method, f"it raised {type(exc).__name__}: {exc}"[:300])
                return exact(rows)
            if found is None:
                return exact(rows)
            return self._checked(method, rows, found, exact) if self._due() else found

        return call

    def _due(self) -> bool:
        return self._draw() * CALLS_A_CHECK < 1 and self._clock() >= self._next_check

    def _checked(self, method: str, rows: Array, found: Array, exact: Call) -> Any:
        """Returns scikit-learn's answer, having compared the compiled one with it."""
        started = self._clock()
        expected = exact(rows)
        assert self._golden is not None  # noqa: S101 - without golden rows nothing is compiled
        differing = int(packages.differing(self._golden, np.asarray(expected), found).sum())
        ended = self._clock()
        self._next_check = ended + (ended - started) / TIME_SHARE
        self.checked_rows += len(rows)
        self.mismatched_rows += differing
        if differing:
            self._give_up(method, f"it differs from scikit-learn in {differing} of {len(rows)} live rows")
        return expected

    def _give_up(self, method: str, why: str) -> None:
        self._functions = {}
        self.reason, self.why = Reason.LIVE_ROWS_DIFFER, f"{method}: {why}"
        _log.error(
            "the compiled model was given up, scikit-learn answers from now on",
            extra={"method": method, "error": why, "checked_rows": self.checked_rows},
        )
