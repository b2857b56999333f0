"""The aims of the page, each beside what was measured."""

from __future__ import annotations

from typing import Any

from benchmarks.decisions import markdown, speed

FAST = {"2x": 2.0, "5x": 1.5, "20x": 1.5}
"""Largest median over the bound that is aimed at."""


def section(results: dict[str, Any]) -> str:
    worst = max(results["false_rollbacks"], key=lambda one: one["rules"]["Kedge"]["high"])
    stable = max(results["stable_equal"], key=lambda one: one["high"])
    requests = [one for one in results["detection_requests"] if one["fraction"] in FAST]
    rows = [
        (
            "false rollbacks, against a target, every shape",
            "upper 95 % limit at most 1 %",
            f"{markdown.percent(worst['rules']['Kedge']['high'])} at worst ({worst['shape']['name']})",
            worst["rules"]["Kedge"]["high"] <= 0.01,
        ),
        (
            "false rollbacks, against stable, every shape",
            "upper 95 % limit at most 1 %",
            f"{markdown.percent(stable['high'])} at worst ({stable['pair']['name']})",
            stable["high"] <= 0.01,
        ),
    ]
    for fractions, goal in ((("2x",), 2.0), (("5x", "20x"), 1.5)):
        slowest = max((one for one in requests if one["fraction"] in fractions), key=lambda o: o["median"] / o["bound"])
        over = slowest["median"] / slowest["bound"]
        rows.append(
            (
                f"median requests to Fail at {' and '.join(fractions)} the budget",
                f"at most {goal:g} times log(k / alpha) / KL",
                f"{over:.2f} at worst (budget {100 * slowest['budget']:g} %, k = {slowest['objectives']})",
                over <= goal,
            )
        )
    whole = [one for one in results["detection_requests"] if one["fraction"] == "100 %"]
    late = [one for one in whole if one["median"] > 1.5 * one["bound"]]
    rows.append(
        (
            "median requests to Fail at 100 % bad",
            "at most 1.5 times log(k / alpha) / KL",
            _late(late, len(whole)),
            not late,
        )
    )
    for least, most, goal in ((2, 2, 2.0), (5, 20, 1.5), (100, 100, 1.5)):
        chosen = [o for o in results["stable_worse"] if o["bound_polls"] and least <= o["multiple"] <= most]
        slowest = max(chosen, key=lambda one: one["median_polls"] / one["bound_polls"])
        over = slowest["median_polls"] / slowest["bound_polls"]
        rows.append(
            (
                f"median polls to Fail against stable, at {_multiples(chosen)}",
                f"at most {goal:g} times log(1 / alpha) / KL",
                f"{over:.2f} at worst ({slowest['pair']['name']})",
                over <= goal,
            )
        )
    lengths = results["guard_lengths"]
    shortest = min(lengths, key=lambda one: one["low"] / one["declared"])
    rows.append(
        (
            "guard: polls between false alarms",
            "at least the declared",
            f"{shortest['low'] / shortest['declared']:.2f} times (lower 95 % limit, {shortest['requests']} a poll)",
            all(one["low"] >= one["declared"] for one in lengths),
        )
    )
    slowest = max(results["guard_delays"], key=lambda one: one["median"] / one["optimum"])
    over = slowest["median"] / slowest["optimum"]
    rows.append(
        (
            "guard: median delay after a change",
            "at most 2 times the optimum for the same run length",
            f"{over:.2f} at worst ({slowest['fraction']}, {slowest['requests']} a poll)",
            over <= 2.0,
        )
    )
    dearest = max(results["speed"], key=lambda one: one["median_milliseconds"])
    rows.append(
        (
            f"a decision on {dearest['objectives']} objectives, {dearest['features']} features, {dearest['pods']} pods",
            f"at most {speed.GOAL_MILLISECONDS:g} ms of CPU",
            f"{dearest['median_milliseconds']:.2f} ms at worst (median, {dearest['case']})",
            dearest["median_milliseconds"] <= speed.GOAL_MILLISECONDS,
        )
    )
    table = markdown.table(
        ("what", "aim", "measured", ""), [(*row[:3], "reached" if row[3] else "**missed**") for row in rows]
    )
    return f"""## In short

{table}

A candidate that fails every request is found after one to three of them, and never later than one request after a
test that is told the truth beforehand. The bound is then between a third of a request and two requests, so for
some budgets no whole number lies within 1.5 times. Against stable it is little more than a poll, and looks come
once a poll.
"""


def _multiples(pairs: list[dict[str, Any]]) -> str:
    return " and ".join(f"{multiple} times" for multiple in sorted({pair["multiple"] for pair in pairs}))


def _late(late: list[dict[str, Any]], cases: int) -> str:
    if not late:
        return f"reached in all {cases} cases"
    bounds = [one["bound"] for one in late]
    medians = sorted({one["median"] for one in late})
    found = " or ".join(f"{median:g}" for median in medians)
    return f"{len(late)} of {cases} cases take {found} where the bound is {min(bounds):.2f} to {max(bounds):.2f}"
