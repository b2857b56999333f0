"""Tables and numbers as the page writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *[list(row) for row in rows]]
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= 1e-4 or share == 0 else f"{100 * share:.1g} %"


def count(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value >= 20 else f"{value:.3g}"
