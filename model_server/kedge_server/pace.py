"""What predictions took lately, and what follows for the next."""

from __future__ import annotations

import dataclasses
import math

# Twice the rows for less than so many times the seconds is worth waiting for.
_WORTH = 1.5
# The weight of what came before, at each new batch.
_KEPT_OF_TOTALS = 0.8
_KEPT_OF_MEANS = 0.8
_KEPT_OF_WORST = 0.9
# Batches of a size that was not met for so many are forgotten, and thereby tried again: it may have been a stall.
_REMEMBERED_BATCHES = 64


@dataclasses.dataclass(slots=True)
class _Size:
    """Batches of about the same size, lately: their means, their worst, and the number of the last."""

    rows: float
    seconds: float
    worst: float
    met: int


class Pace:
    """Learns from each batch: its rows, and its seconds from its start to its outcomes.

    Batches count as about as large when their rows lie below the same power of two.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._rows = 0.0
        self._seconds = 0.0
        self._sizes: dict[int, _Size] = {}

    def add(self, rows: int, seconds: float) -> None:
        """Learns from a batch of `rows`, at least one."""
        self._batches += 1
        self._rows = _KEPT_OF_TOTALS * self._rows + rows
        self._seconds = _KEPT_OF_TOTALS * self._seconds + seconds
        size = self._sizes.setdefault(rows.bit_length(), _Size(rows, seconds, seconds, self._batches))
        size.rows = rows + _KEPT_OF_MEANS * (size.rows - rows)
        size.seconds = seconds + _KEPT_OF_MEANS * (size.seconds - seconds)
        size.worst = max(seconds, _KEPT_OF_WORST * size.worst)
        size.met = self._batches
        for bits in [bits for bits, s in self._sizes.items() if self._batches - s.met > _REMEMBERED_BATCHES]:
            del self._sizes[bits]

    @property
    def seconds_a_row(self) -> float:
        """What a row took lately, in batches as they were lately; 0 when there was none."""
        return self._seconds / self._rows if self._rows else 0.0

    def worst(self, rows: int) -> float:
        """Returns what batches about as large took, in seconds, rather at worst than on average.

        Infinite when there was none. One slow batch counts at once, and is forgotten over some dozens of quick ones.
        """
        size = self._sizes.get(rows.bit_length())
        return math.inf if size is None else size.worst

    def rows_at_once(self, seconds: float) -> int:
        """Returns how many rows to predict together, so that it takes about `seconds` at most; 0 when nothing is known.

        It may take longer where that pays: a model that takes a second for one row, and hardly longer for a
        hundred, should get a hundred. At most twice as many rows as have been tried.
        """
        if not self._sizes:
            return 0
        smallest, *larger = sorted(self._sizes)
        good, best = smallest, self._sizes[smallest]
        for bits in larger:
            size = self._sizes[bits]
            if size.seconds > max(seconds, best.seconds * (size.rows / best.rows) ** math.log2(_WORTH)):
                return (1 << min(bits - 1, good + 1)) - 1
            good, best = bits, size
        return (1 << (good + 1)) - 1
