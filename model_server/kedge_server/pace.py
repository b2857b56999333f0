"""What predictions took lately, and what can be foretold from it."""

from __future__ import annotations

import math

# The weight of what came before, at each new batch.
_KEPT_OF_TOTALS = 0.8
_KEPT_OF_WORST = 0.9


class Pace:
    """Learns from each batch: its rows, and its seconds from its start to its outcomes."""

    def __init__(self) -> None:
        self._rows = 0.0
        self._seconds = 0.0
        # Seconds by the power of two that the number of rows lies below.
        self._worst: dict[int, float] = {}

    def add(self, rows: int, seconds: float) -> None:
        """Learns from a batch of `rows`, at least one."""
        self._rows = _KEPT_OF_TOTALS * self._rows + rows
        self._seconds = _KEPT_OF_TOTALS * self._seconds + seconds
        size = rows.bit_length()
        self._worst[size] = max(seconds, _KEPT_OF_WORST * self._worst.get(size, 0.0))

    @property
    def seconds_a_row(self) -> float:
        """What a row took lately, in batches as they were lately; 0 when there was none."""
        return self._seconds / self._rows if self._rows else 0.0

    def rows_within(self, seconds: float) -> float:
        """Returns how many rows surely fit into `seconds`; 0 when nothing is known.

        Of a model that takes hardly longer for many rows than for one, more would fit; that shows
        when it has been given more.
        """
        if not self._rows:
            return 0.0
        return seconds / self.seconds_a_row if self._seconds else math.inf

    def worst(self, rows: int) -> float:
        """Returns what batches about as large took, in seconds, rather at worst than on average.

        Infinite when there was none. One slow batch counts at once, and is forgotten over some dozens of quick ones.
        """
        return self._worst.get(rows.bit_length(), math.inf)
