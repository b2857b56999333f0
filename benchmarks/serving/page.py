"""Writes the page from the results."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Cell = dict[str, Any]

PEERS = ("mlserver", "mlserver batching", "fastapi", "bentoml", "litserve")
CELLS = {"L": "linear pipeline", "F": "forest of 100"}
P99_OVER_P50 = 2.5
COUNTERS_COST = 0.05
UNCOUNTED = "kedge uncounted"


@dataclasses.dataclass(frozen=True)
class Aim:
    """A ratio of throughput that is to be reached in one cell.

    Attributes:
        cell: Model, rows and connections.
        over: The server that it is compared with.
        least: Smallest ratio that counts as reached.
        server: Whose throughput it is.
    """

    cell: tuple[str, int, int]
    over: str
    least: float
    server: str = "kedge"


def _mlserver(cell: tuple[str, int, int], least: float) -> tuple[Aim, Aim]:
    """Returns an aim against MLServer, held against both of its settings."""
    return Aim(cell, "mlserver", least), Aim(cell, "mlserver batching", least)


AIMS = (
    Aim(("L", 1, 64), "minimal", 5),
    *_mlserver(("L", 1, 64), 12),
    Aim(("F", 1, 64), "minimal", 20),
    *_mlserver(("F", 1, 64), 30),
    Aim(("L", 100, 64), "minimal", 1.5),
    *_mlserver(("L", 100, 64), 3),
    Aim(("F", 100, 64), "minimal", 4.5),
    *_mlserver(("F", 100, 64), 5),
    Aim(("L", 1, 1), "minimal", 0.85),
    *_mlserver(("L", 1, 1), 2),
    Aim(("F", 1, 1), "minimal", 0.95),
    Aim(("L", 1, 1), "minimal", 1.5, "kedge compiled"),
    Aim(("F", 1, 1), "minimal", 8, "kedge compiled"),
)


def write(results: dict[str, Any], path: Path) -> None:
    """Writes the page to `path`."""
    cells = {(c["model"], c["rows"], c["connections"]): c for c in results["cells"]}
    parts = [_head(results), _goals(cells), *(_cells(cells, model) for model in CELLS), _limits()]
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n")


def _head(results: dict[str, Any]) -> str:
    rounds, seconds = (min(cell[name] for cell in results["cells"]) for name in ("rounds", "seconds"))
    code = ", ".join(sorted({cell["code"] for cell in results["cells"]}))
    return f"""
# How fast the model server is

Whole servers side by side in one run, with the same two models over the digits of scikit-learn (64 numbers a row):
L, StandardScaler and LogisticRegression, and F, a forest of 100 trees. Every request asks `predict_proba` for other
rows. The server has one core, wrk the other, and servers that are not measured just then are stopped. A figure is the
median of at least {rounds} interleaved turns of {seconds} s or more, each after a second of load and a pause; a
ratio is the median of those within each round of turns.
The page is generated, figures and words, by `make bench-serving` (`python -m benchmarks.serving`); the numbers are in
[results.json](results.json). Processor: {results["processor"]}; Python {results["python"]}; the model server as
its last change left it: {code}.

*minimal* is [a raw ASGI server](../../benchmarks/serving/minimal.py) of fifty lines on uvicorn, without batching,
checks or metrics: what a Python server can do without being clever. *Bare* calls `predict_proba` in a loop. Kedge
runs with all its metrics, data-quality counters included; *kedge uncounted* does without those (`--count-data false`),
and *kedge compiled* answers by the compiled form of the model (`--compile Auto`).
How the [peers](../../benchmarks/serving/peers/README.md) are set is told beside their code.
"""


def _goals(cells: dict[tuple[str, int, int], Cell]) -> str:
    rows = [row for aim in AIMS if (row := _goal(aim, cells)) is not None]
    saturated = [cell for (_, _, connections), cell in cells.items() if connections > 1 and "kedge" in cell["servers"]]
    rows += [_below_peers(saturated), _even(saturated)] if saturated else []
    rows += _counters(cells)
    table = _table(("what", "aim", "measured", ""), [(*row[:3], "reached" if row[3] else "**missed**") for row in rows])
    return f"""## In short

{table}

The aims against MLServer were set when 241 requests a second of F (one row, 64 connections) were taken for its best,
which is near what *mlserver* does. *mlserver batching* waits for others up to a millisecond, and does much more where
the model gains from batches.
"""


def _goal(aim: Aim, cells: dict[tuple[str, int, int], Cell]) -> tuple[str, str, str, bool] | None:
    cell = cells.get(aim.cell)
    if cell is None or not {aim.server, aim.over} <= cell["servers"].keys():
        return None
    found = ratio(cell, aim.server, aim.over)
    what = f"{_name(cell)}: {aim.server} over {aim.over}"
    return what, f"at least {aim.least:g}", f"{found:.2f}", found >= aim.least


def _below_peers(cells: list[Cell]) -> tuple[str, str, str, bool]:
    late = []
    for cell in cells:
        peers = [s["p99Milliseconds"] for name, s in cell["servers"].items() if name in PEERS]
        if peers and cell["servers"]["kedge"]["p99Milliseconds"] >= min(peers):
            late.append(_name(cell))
    what = "p99 with 16 and 64 connections"
    return what, "below every peer's", f"not in {'; '.join(late)}" if late else f"in all {len(cells)} cells", not late


def _even(cells: list[Cell]) -> tuple[str, str, str, bool]:
    ratios = {
        _name(c): c["servers"]["kedge"]["p99Milliseconds"] / c["servers"]["kedge"]["p50Milliseconds"] for c in cells
    }
    worst = max(ratios, key=lambda name: ratios[name])
    over = [f"{name}: {ratio:.2f}" for name, ratio in ratios.items() if ratio > P99_OVER_P50]
    measured = "; ".join(over) if over else f"{ratios[worst]:.2f} at worst ({worst})"
    return "p99 over its own p50 with 16 and 64 connections", f"at most {P99_OVER_P50}", measured, not over


def _counters(cells: dict[tuple[str, int, int], Cell]) -> Iterable[tuple[str, str, str, bool]]:
    costs = {
        _name(cell): 1 - ratio(cell, "kedge", UNCOUNTED)
        for (_, _, connections), cell in cells.items()
        if connections == 64 and {"kedge", UNCOUNTED} <= cell["servers"].keys()
    }
    if costs:
        worst = max(costs, key=lambda name: costs[name])
        yield (
            "data-quality and drift counters, 64 connections",
            f"at most {100 * COUNTERS_COST:g} % of throughput",
            f"{100 * costs[worst]:.1f} % at worst ({worst})",
            costs[worst] <= COUNTERS_COST,
        )


def _cells(cells: dict[tuple[str, int, int], Cell], model: str) -> str:
    chosen = [cell for cell in cells.values() if cell["model"] == model]
    parts = [f"## {model}: {CELLS[model]}"]
    for rows in sorted({cell["rows"] for cell in chosen}):
        sized = [cell for cell in chosen if cell["rows"] == rows]
        names = list(dict.fromkeys(name for cell in sized for name in cell["servers"]))
        bare = ", ".join(f"{cell['bare']:,.0f}" for cell in sized)
        head = ["server", *(_connections(cell["connections"]) for cell in sized)]
        lines = [[name, *(_figures(cell, name) for cell in sized)] for name in names]
        parts.append(
            f"{_rows(rows)} a request: requests a second, ratio to minimal, p50 / p99 in ms. Bare loop: {bare} calls a"
            f" second.\n\n{_table(head, lines)}"
        )
    return "\n\n".join(parts)


def _figures(cell: Cell, name: str) -> str:
    found = cell["servers"].get(name)
    if found is None:
        return ""
    times_minimal = f" = {ratio(cell, name, 'minimal'):.2f} R" if "minimal" in cell["servers"] else ""
    errors = f", **{found['errors']:.0f} errors**" if found["errors"] else ""
    times = f"{found['p50Milliseconds']:.1f} / {found['p99Milliseconds']:.1f} ms"
    return f"{found['requestsPerSecond']:,.0f}/s{times_minimal}, {times}{errors}"


def _limits() -> str:
    return """## What these figures do not say

- One machine, one core for the server: only ratios within a cell mean anything, and they vary by some percent.
- Clients are closed loops that ask again at once, which suits servers that batch. An open stream of rare requests
  gains nothing from batching; the column with one connection shows that.
- wrk opens its connections at the start of each turn. Where a server takes seconds for all of them, its first answers
  are in its p99.
- BentoML's adaptive batching waits for more where few clients send a hundred rows each; without batching, which is not
  measured here, it would not.
- FastAPI, BentoML and LitServe have no Open Inference Protocol; they are asked in a plain form of their own.
"""


def ratio(cell: Cell, server: str, other: str) -> float:
    """Returns the throughput of `server` over that of `other`: the median of each round's ratio."""
    rounds: Iterable[list[float]] = (cell["servers"][name]["requestsPerSecondByRound"] for name in (server, other))
    return float(statistics.median(a / b for a, b in zip(*rounds, strict=True)))


def _name(cell: Cell) -> str:
    return f"{cell['model']}, {_rows(cell['rows'])}, {_connections(cell['connections'])}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *[list(row) for row in rows]]
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))
