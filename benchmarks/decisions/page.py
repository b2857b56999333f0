"""Writes the page from the results."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.decisions import rules

Results = dict[str, Any]

FAST = {"2x": 2.0, "5x": 1.5, "20x": 1.5}
"""Largest median over the bound that is aimed at."""


def write(results: Results, path: Path) -> None:
    """Write the page to `path`."""
    parts = [
        _head(results),
        _goals(results),
        _false_rollbacks(results),
        _bursts(results),
        _detection(results),
        _polls(results),
        _stable(results),
        _guard(results),
        _drift(results),
        _limits(),
    ]
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n")


def _head(results: Results) -> str:
    quick = "\n\n**This is a quick run: its limits are wide.**" if results["quick"] else ""
    return f"""
# How well Kedge decides

Kedge promises a bound on the chance of rolling a good model back, whatever the traffic and however often it
looks. This page measures that promise, and what it costs in speed, by simulation. It is generated, figures and
words, by `make bench-decisions` (`python -m benchmarks.decisions`) from seed {results["seed"]}; the numbers are in
[results.json](results.json). The tests are those of `kedge.decide.statistics`, called as the operator calls them; the
other tools' rules are written from their documentation, with a query over the last minute each minute.{quick}

![Evidence over requests](evidence.svg)

Each line is a candidate. Evidence against a good one fades; against a bad one it grows until it reaches the
threshold. Over the whole life of a good candidate the line reaches it with a probability of at most 1 %.
"""


def _goals(results: Results) -> str:
    worst = max(results["false_rollbacks"], key=lambda one: one["rules"]["Kedge"]["high"])
    stable = max(results["stable_equal"], key=lambda one: one["high"])
    requests = [one for one in results["detection_requests"] if one["fraction"] in FAST]
    rows = [
        (
            "false rollbacks, against a target, every shape",
            "upper 95 % limit at most 1 %",
            f"{_percent(worst['rules']['Kedge']['high'])} at worst ({worst['shape']['name']})",
            worst["rules"]["Kedge"]["high"] <= 0.01,
        ),
        (
            "false rollbacks, against stable, every shape",
            "upper 95 % limit at most 1 %",
            f"{_percent(stable['high'])} at worst ({stable['pair']['name']})",
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
    for least, most, goal in ((2, 2, 2.0), (5, 20, 1.5)):
        chosen = [o for o in results["stable_worse"] if o["bound_polls"] and least <= o["multiple"] <= most]
        slowest = max(chosen, key=lambda one: one["median_polls"] / one["bound_polls"])
        over = slowest["median_polls"] / slowest["bound_polls"]
        rows.append(
            (
                f"the same against stable, at {' and '.join(f'{m}x' for m in sorted({o['multiple'] for o in chosen}))}",
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
    table = _table(("what", "aim", "measured", ""), [(*row[:3], "reached" if row[3] else "**missed**") for row in rows])
    return f"""## In short

{table}

A candidate that fails every request is found after one to three of them, and never later than one request after a
test that is told the truth beforehand. The bound is then between a third of a request and two requests, so for
some budgets no whole number lies within 1.5 times.
"""


def _late(late: list[dict[str, Any]], cases: int) -> str:
    if not late:
        return f"reached in all {cases} cases"
    bounds = [one["bound"] for one in late]
    medians = sorted({one["median"] for one in late})
    found = " or ".join(f"{median:g}" for median in medians)
    return f"{len(late)} of {cases} cases take {found} where the bound is {min(bounds):.2f} to {max(bounds):.2f}"


def _false_rollbacks(results: Results) -> str:
    names = ["Kedge", *rules.OTHERS]
    rows = []
    for one in results["false_rollbacks"]:
        shape, kedge = one["shape"], one["rules"]["Kedge"]
        rows.append(
            (
                shape["name"],
                f"{100 * shape['budget']:g} %",
                f"{100 * shape['fraction']:g} %",
                f"{_percent(kedge['share'])} (to {_percent(kedge['high'])})",
                *(_percent(one["rules"][name]["share"]) for name in names[1:]),
            )
        )
    table = _table(("traffic", "budget", "truly bad", "Kedge (upper limit)", *names[1:]), rows)
    return f"""## False rollbacks

{results["false_rollbacks"][0]["runs"]:,} rollouts for each shape of traffic, half an hour with a look every 5 s, of
candidates that keep their objectives, most of them only just. The limits are exact (Clopper and Pearson) 95 % ones.

![Share of good candidates rolled back](false-rollbacks.svg)

{table}

Comparing each window's ratio with the budget rolls back whatever is close to it, sooner or later, and repeating a
z-test inflates its 1 % without limit. Windows of few requests breach by chance even at half the budget; far inside
it, and with much traffic, every rule is right.
"""


def _bursts(results: Results) -> str:
    rows = [
        (
            one["bursts"]["name"],
            f"{one['bursts']['candidate']:g} / {one['bursts']['stable']:g}",
            _percent(one["bursts"]["level"] * 0.01),
            f"{one['median_effect']:.2f}",
            f"{_percent(one['plain']['share'])} (to {_percent(one['plain']['high'])})",
            f"{_percent(one['corrected']['share'])} (to {_percent(one['corrected']['high'])})",
        )
        for one in results["bursts"]
    ]
    head = (
        "traffic",
        "candidate / stable a poll",
        "truly bad",
        "estimated effect",
        "without",
        "with the design effect",
    )
    return f"""### Correlated requests

The bound assumes that no request is bad with a probability above the budget, whatever happened before. Bursts
break that: for a while every request is worse, though the mean keeps the objective. Kedge divides counts by the
design effect that stable's own polls show; here it has seen stable for five minutes before each of
{results["bursts"][0]["runs"]:,} rollouts, and the budget is 1 %.

{_table(head, rows)}

So with the correction the bound is approximate. It is least so for bursts that outlast a poll, of which five
minutes show few, and for a candidate whose polls are many times as large as those that it was estimated from.
"""


def _detection(results: Results) -> str:
    rows = [
        (
            f"{100 * one['budget']:g} %",
            str(one["objectives"]),
            one["fraction"],
            _count(one["bound"]),
            f"{_count(one['median'])} ({_count(one['low'])} to {_count(one['high'])})",
            f"{one['median'] / one['bound']:.2f}",
            _count(one["oracle"]),
        )
        for one in results["detection_requests"]
    ]
    head = ("budget", "objectives", "truly bad", "bound", "median (95 % limits)", "over the bound", "told the truth")
    return f"""## Detection

How many requests until Fail, looking at each of them, in {results["detection_requests"][0]["runs"]:,} runs. The bound
log(k / alpha) / KL is the mean that no test with this guarantee can beat; "told the truth" is the median of Wald's
test that knows the bad fraction beforehand.

![Requests until Fail over the bound](detection.svg)

{_table(head, rows)}
"""


def _polls(results: Results) -> str:
    names = ["Kedge", *rules.OTHERS, "known alternative"]
    rows = []
    for one in results["detection_polls"]:
        cells = []
        for name in names:
            found = one["rules"].get(name)
            if found is None:
                cells.append("")
            elif found["rolled_back"] < 0.5:
                cells.append(f"{_percent(found['rolled_back'])} rolled back")
            elif one["fraction"] == "just inside":
                cells.append(f"{_percent(found['rolled_back'])} **rolled back**")
            else:
                missed = "" if found["rolled_back"] > 0.9995 else f", {_percent(1 - found['rolled_back'])} missed"
                cells.append(f"{found['median_polls']:g}{missed}")
        rows.append((f"{one['requests']:g}", one["fraction"], *cells))
    return f"""### Beside other rules

Median polls (5 s each) until rollback, within an hour, budget 1 %. The first row of each size is a good candidate, just
inside its budget: whoever is faster than the known alternative below pays for it there.

![Polls until rollback](polls.svg)

{_table(("a poll", "truly bad", *names), rows)}
"""


def _stable(results: Results) -> str:
    equal = [
        (
            one["pair"]["name"],
            f"{100 * one['pair']['stable']:g} % / {100 * one['pair']['candidate']:g} %",
            f"{100 * one['pair']['tolerance']:g} %",
            f"{_percent(one['share'])} (to {_percent(one['high'])})",
        )
        for one in results["stable_equal"]
    ]
    worse = [
        (
            one["pair"]["name"],
            f"{100 * one['pair']['stable']:g} % / {100 * one['pair']['candidate']:g} %",
            "" if one["bound_polls"] is None else f"{one['bound_polls']:.1f}",
            f"{one['median_polls']:g} ({one['low']:g} to {one['high']:g})",
            "" if one["bound_polls"] is None else f"{one['median_polls'] / one['bound_polls']:.2f}",
            _percent(one["missed"]),
        )
        for one in results["stable_worse"]
    ]
    return f"""## Against stable

Candidates that are no worse than stable, or worse by just what is tolerated, in
{results["stable_equal"][0]["runs"]:,} rollouts of twenty minutes each. In "shared troubles" both revisions fail a
fifth more of their requests in every other spell of twenty polls; a comparison with a target would roll back for
that. Stable was seen for five minutes before.

{_table(("traffic", "stable / candidate", "tolerance", "rolled back (upper limit)"), equal)}

Candidates that are worse, in polls until Fail, {results["stable_worse"][0]["runs"]:,} runs. The bound is log(1 / alpha)
over the information of both arms in a poll.

{_table(("traffic", "stable / candidate", "bound", "median polls (95 % limits)", "over the bound", "missed"), worse)}
"""


def _guard(results: Results) -> str:
    lengths = [
        (
            str(one["requests"]),
            f"{one['declared']:,}",
            f"{one['mean']:,.0f} ({one['low']:,.0f} to {one['high']:,.0f})",
            f"{one['mean'] / one['declared']:.2f}",
            _percent(one["cut"]),
        )
        for one in results["guard_lengths"]
    ]
    delays = [
        (
            str(one["requests"]),
            f"{one['declared']:,}",
            one["fraction"],
            f"{one['median']:g} ({one['low']:g} to {one['high']:g})",
            f"{one['optimum']:g}",
            f"{one['median'] / one['optimum']:.2f}",
            f"{one['bound']:.2f}",
        )
        for one in results["guard_delays"]
    ]
    head = ("a poll", "declared", "changed to", "median delay (95 % limits)", "optimum", "over it", "log(length) / KL")
    return f"""## The guard after promotion

Mean polls until a false alarm, with the bad fraction exactly at the budget of 1 % all the time (anything better
alarms more rarely), {results["guard_lengths"][0]["runs"]:,} runs. Runs were cut at six times the declared length, which
can only lower the mean.

{_table(("a poll", "declared", "measured (95 % limits)", "over declared", "cut"), lengths)}

Delay from a change, after 200 polls at the budget, to the alarm, in polls. The optimum is CUSUM with the changed
fraction known beforehand and its level set so that it alarms falsely as often as is declared here; 518,400
polls are thirty days.

![Delay of the guard](guard.svg)

{_table(head, delays)}
"""


def _drift(results: Results) -> str:
    names = list(results["drift"][0]["rules"])
    rows = []
    for one in results["drift"]:
        for name in names:
            found = one["rules"][name]
            rows.append(
                (
                    f"{one['reference']:,} / {one['live']:,}",
                    name,
                    f"{_percent(found['false'])} (to {_percent(found['high'])})",
                    _percent(found["found"]),
                    _percent(found["insufficient"]),
                )
            )
    head = (
        "reference / live rows",
        "rule",
        "false alarm (upper limit)",
        "alarm after a shift",
        "a feature insufficient",
    )
    return f"""## Drift

{results["drift"][0]["runs"]:,} models of twenty features with ten bins each, one look, maximum 0 and alpha 1 %, of
which a first look spends half. False alarm: some feature is called drifted though all stayed. Shift: one feature's
outer two bins hold half as much again of their share.

{_table(head, rows)}

A fixed threshold is a bet on the number of rows: with few it alarms on noise, and with many it is silent about a
shift that is certain. Whether such a shift matters is what an objective's `maximum` says.
"""


def _limits() -> str:
    return """## What these figures do not say

- Requests are simulated, independent but for the section on bursts. Your traffic has its own correlation, and
  the design effect is an estimate.
- A test only sees what its indicator counts as bad.
- The other tools' rules are compared as rules, with their usual settings and without their surroundings; users tune
  thresholds to their traffic, and at half the budget they behave better than close to it.
- How many requests a poll brings is taken as given. A candidate so broken that it answers nothing is a matter of
  readiness and restarts, not of these tests.
"""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *[list(row) for row in rows]]
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= 1e-4 or share == 0 else f"{100 * share:.1g} %"


def _count(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value >= 20 else f"{value:.3g}"
