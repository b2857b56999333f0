"""Draws the figures of the page, as SVG that is the same for the same results."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from benchmarks.decisions import rules

from kedge.decide.statistics import alpha, ratio

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Results = dict[str, Any]

COLOURS = {
    "Kedge": "#0b6e4f",
    "Argo Rollouts, failureLimit 0": "#d1495b",
    "Argo Rollouts, failureLimit 3": "#e58c8a",
    "Flagger, threshold 5": "#3066be",
    "z-test at every poll": "#b79f00",
    "known alternative": "#888888",
}
MARKERS = dict(zip(COLOURS, "osDv^x", strict=True))
STYLE: Any = {
    "svg.hashsalt": "kedge",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw(results: Results, folder: Path) -> None:
    """Write every figure into `folder`."""
    figures: dict[str, tuple[Callable[[Axes, Results], None], tuple[float, float]]] = {
        "evidence": (_evidence, (7, 3.6)),
        "false-rollbacks": (_false_rollbacks, (7, 5)),
        "detection": (_detection, (7, 3.4)),
        "polls": (_polls, (7, 3.4)),
        "guard": (_guard, (7, 3.4)),
    }
    with mpl.rc_context(STYLE):
        for name, (plot, size) in figures.items():
            figure, axes = plt.subplots(figsize=size, layout="constrained")
            plot(axes, results)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


def _evidence(axes: Axes, results: Results) -> None:
    """How evidence grows or fades for candidates of several qualities."""
    rng, budget, requests = np.random.default_rng(results["seed"]), 0.01, 1500
    looks = np.arange(5, requests + 1, 5)
    for multiple, colour in ((0.5, "#0b6e4f"), (1, "#b79f00"), (2, "#e58c8a"), (5, "#d1495b")):
        for _ in range(3):
            bad = (rng.random(requests) < multiple * budget).cumsum()[looks - 1]
            path = [ratio.log_e_value(int(b), int(n), budget) for b, n in zip(bad, looks, strict=True)]
            limit = alpha.threshold(rules.ALPHA, 1)
            end = next((i + 1 for i, value in enumerate(path) if value >= limit), len(path))
            label = {0.5: "half the budget", 1: "at the budget"}.get(multiple, f"{multiple} times the budget")
            axes.plot(looks[:end], path[:end], color=colour, linewidth=1.1, label=label)
            if end < len(path):
                axes.plot(looks[end - 1], path[end - 1], "x", color=colour)
    axes.axhline(alpha.threshold(rules.ALPHA, 1), color="black", linewidth=0.8, linestyle="--")
    axes.annotate("Fail: e-value 100", (requests, math.log(100)), ha="right", va="bottom", xytext=(0, 2),
                  textcoords="offset points")  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4)
    axes.set(xlabel="requests", ylabel="log e-value", title="Evidence against a budget of 1 %, three candidates each")


def _false_rollbacks(axes: Axes, results: Results) -> None:
    """The share of good candidates that each rule rolls back, by shape of traffic."""
    shapes = results["false_rollbacks"]
    floor = 1e-5
    for offset, name in enumerate(list(COLOURS)[:5]):
        rows = np.arange(len(shapes)) + (offset - 2) * 0.15
        measured = [shape["rules"][name] for shape in shapes]
        share = np.array([max(floor, one["share"]) for one in measured])
        low = share - np.array([max(floor, one["low"]) for one in measured])
        high = np.array([one["high"] for one in measured]) - share
        axes.errorbar(share, rows, xerr=[np.maximum(0, low), np.maximum(0, high)], fmt=MARKERS[name], markersize=4,
                      color=COLOURS[name], elinewidth=1, label=name)  # fmt: skip
    axes.axvline(rules.ALPHA, color="black", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(floor * 0.8, 1.3)
    axes.set_xticks([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1], ["0", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    axes.set_yticks(range(len(shapes)), [shape["shape"]["name"] for shape in shapes])
    axes.invert_yaxis()
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    axes.set(xlabel="good candidates rolled back, with 95 % limits", title="False rollbacks; declared: at most 1 %")


def _detection(axes: Axes, results: Results) -> None:
    """Median requests to Fail over the information bound."""
    measured = [one for one in results["detection_requests"] if one["fraction"] != "100 %" and one["objectives"] == 1]
    fractions = ["2x", "5x", "20x"]
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, len({one["budget"] for one in measured})))
    for number, budget in enumerate(sorted({one["budget"] for one in measured})):
        rows = [one for one in measured if one["budget"] == budget]
        x = np.array([fractions.index(one["fraction"]) for one in rows]) + (number - 2) * 0.08
        y = np.array([one["median"] / one["bound"] for one in rows])
        error = [
            y - np.array([one["low"] / one["bound"] for one in rows]),
            np.array([one["high"] / one["bound"] for one in rows]) - y,
        ]
        axes.errorbar(x, y, yerr=error, fmt="o", color=shades[number], label=f"budget {100 * budget:g} %")
    for index, goal in enumerate((2.0, 1.5, 1.5)):
        axes.plot([index - 0.4, index + 0.4], [goal, goal], color="black", linewidth=0.8, linestyle="--",
                  label="goal" if index == 0 else None)  # fmt: skip
    axes.axhline(1.0, color="#888888", linewidth=0.8)
    axes.set_xticks(range(3), [f"{name} the budget" for name in fractions])
    axes.set_ylim(0, 2.2)
    axes.legend(loc="lower right", ncols=2)
    axes.set(ylabel="median / bound", title="Requests until Fail, over log(1 / alpha) / KL")


def _polls(axes: Axes, results: Results) -> None:
    """Median polls until each rule rolls back, at 50 requests a poll, and its price."""
    rows = [row for row in results["detection_polls"] if row["requests"] == 50]
    wrong = rows[0]["rules"]
    bad = rows[1:]
    for name, colour in COLOURS.items():
        medians = [row["rules"][name]["median_polls"] for row in bad]
        price = f": {100 * wrong[name]['rolled_back']:.3g} % of good ones too" if name in wrong else ""
        axes.plot(range(len(bad)), [median or math.nan for median in medians], marker=MARKERS[name],
                  color=colour, linewidth=1.2, label=name + price)  # fmt: skip
    axes.set_yscale("log")
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.set_ylim(0.8, 1500)
    axes.set_xticks(
        range(len(bad)), [row["fraction"] + (" the budget" if "x" in row["fraction"] else "") for row in bad]
    )
    axes.legend(loc="upper right", fontsize=8)
    axes.set(ylabel="median polls until rollback", title="Polls of 50 requests until a bad candidate is rolled back")


def _guard(axes: Axes, results: Results) -> None:
    """The guard's delay beside the optimum."""
    rows = [row for row in results["guard_delays"] if row["fraction"] != "100 %"]
    labels = [f"{row['fraction']}, {row['requests']} a poll\n1 in {row['declared']:,}" for row in rows]
    x = np.arange(len(rows))
    axes.bar(x - 0.2, [row["median"] for row in rows], 0.38, color="#0b6e4f", label="Kedge's guard")
    axes.bar(x + 0.2, [row["optimum"] for row in rows], 0.38, color="#888888", label="CUSUM that knows the change")
    axes.set_yscale("log")
    axes.set_xticks(x, labels, fontsize=6, rotation=30)
    axes.legend()
    axes.set(
        ylabel="median polls of delay", title="Delay after a change, by how rarely a false alarm is allowed (polls)"
    )
