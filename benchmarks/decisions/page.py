"""Writes the page from the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.decisions import goals, markdown, rules

Results = dict[str, Any]


def write(results: Results, path: Path) -> None:
    """Write the page to `path`."""
    parts = [
        _head(results),
        goals.section(results),
        _false_rollbacks(results),
        _bursts(results),
        _detection(results),
        _polls(results),
        _stable(results),
        _guard(results),
        _drift(results),
        _speed(results),
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
                f"{markdown.percent(kedge['share'])} (to {markdown.percent(kedge['high'])})",
                *(markdown.percent(one["rules"][name]["share"]) for name in names[1:]),
            )
        )
    table = markdown.table(("traffic", "budget", "truly bad", "Kedge (upper limit)", *names[1:]), rows)
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
            markdown.percent(one["bursts"]["level"] * 0.01),
            f"{one['median_effect']:.2f}",
            f"{markdown.percent(one['plain']['share'])} (to {markdown.percent(one['plain']['high'])})",
            f"{markdown.percent(one['corrected']['share'])} (to {markdown.percent(one['corrected']['high'])})",
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

{markdown.table(head, rows)}

So with the correction the bound is approximate. It is least so for bursts that outlast a poll, of which five
minutes show few, and for a candidate whose polls are many times as large as those that it was estimated from.
"""


def _detection(results: Results) -> str:
    rows = [
        (
            f"{100 * one['budget']:g} %",
            str(one["objectives"]),
            one["fraction"],
            markdown.count(one["bound"]),
            f"{markdown.count(one['median'])} ({markdown.count(one['low'])} to {markdown.count(one['high'])})",
            f"{one['median'] / one['bound']:.2f}",
            markdown.count(one["oracle"]),
        )
        for one in results["detection_requests"]
    ]
    head = ("budget", "objectives", "truly bad", "bound", "median (95 % limits)", "over the bound", "told the truth")
    return f"""## Detection

How many requests until Fail, looking at each of them, in {results["detection_requests"][0]["runs"]:,} runs. The bound
log(k / alpha) / KL is the mean that no test with this guarantee can beat; "told the truth" is the median of Wald's
test that knows the bad fraction beforehand.

![Requests until Fail over the bound](detection.svg)

{markdown.table(head, rows)}
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
                cells.append(f"{markdown.percent(found['rolled_back'])} rolled back")
            elif one["fraction"] == "just inside":
                cells.append(f"{markdown.percent(found['rolled_back'])} **rolled back**")
            else:
                missed = (
                    "" if found["rolled_back"] > 0.9995 else f", {markdown.percent(1 - found['rolled_back'])} missed"
                )
                cells.append(f"{found['median_polls']:g}{missed}")
        rows.append((f"{one['requests']:g}", one["fraction"], *cells))
    return f"""### Beside other rules

Median polls (5 s each) until rollback, within an hour, budget 1 %. The first row of each size is a good candidate, just
inside its budget: whoever is faster than the known alternative below pays for it there.

![Polls until rollback](polls.svg)

{markdown.table(("a poll", "truly bad", *names), rows)}
"""


def _stable(results: Results) -> str:
    equal = [
        (
            one["pair"]["name"],
            f"{100 * one['pair']['stable']:g} % / {100 * one['pair']['candidate']:g} %",
            f"{100 * one['pair']['tolerance']:g} %",
            f"{markdown.percent(one['share'])} (to {markdown.percent(one['high'])})",
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
            markdown.percent(one["missed"]),
        )
        for one in results["stable_worse"]
    ]
    head = ("traffic", "stable / candidate", "bound", "median polls (95 % limits)", "over the bound", "missed")
    return f"""## Against stable

Candidates that are no worse than stable, or worse by just what is tolerated, in
{results["stable_equal"][0]["runs"]:,} rollouts of twenty minutes each. In "shared troubles" both revisions fail a
fifth more of their requests in every other spell of twenty polls; a comparison with a target would roll back for
that. Stable's five minutes before are known, as its
pods' counters tell them to the operator.

{markdown.table(("traffic", "stable / candidate", "tolerance", "rolled back (upper limit)"), equal)}

Candidates that are worse, in polls until Fail, {results["stable_worse"][0]["runs"]:,} runs. The bound is log(1 / alpha)
over the information of both arms in a poll.

{markdown.table(head, worse)}
"""


def _guard(results: Results) -> str:
    lengths = [
        (
            str(one["requests"]),
            f"{one['declared']:,}",
            f"{one['mean']:,.0f} ({one['low']:,.0f} to {one['high']:,.0f})",
            f"{one['mean'] / one['declared']:.2f}",
            markdown.percent(one["cut"]),
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

{markdown.table(("a poll", "declared", "measured (95 % limits)", "over declared", "cut"), lengths)}

Delay from a change, after 200 polls at the budget, to the alarm, in polls. The optimum is CUSUM with the changed
fraction known beforehand and its level set so that it alarms falsely as often as is declared here; 518,400
polls are thirty days.

![Delay of the guard](guard.svg)

{markdown.table(head, delays)}
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
                    f"{markdown.percent(found['false'])} (to {markdown.percent(found['high'])})",
                    markdown.percent(found["found"]),
                    markdown.percent(found["insufficient"]),
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

{markdown.table(head, rows)}

A fixed threshold is a bet on the number of rows: with few it alarms on noise, and with many it is silent about a
shift that is certain. Whether such a shift matters is what an objective's `maximum` says.
"""


def _speed(results: Results) -> str:
    rows = [
        (one["case"], f"{one['median_milliseconds']:.2f} ms", f"{one['p99_milliseconds']:.2f} ms")
        for one in results["speed"]
    ]
    first = results["speed"][0]
    return f"""## What a decision costs

CPU time of a whole decision, from the pods' readings to the next status, in the midst of a step: {first["objectives"]}
objectives, two of them on drift over {first["features"]} features and one output, {first["pods"]} pods,
{first["decisions"]:,} decisions. Histograms are compared when the rows have grown by half since the last time.

{markdown.table(("the readings bring", "median", "99 %"), rows)}
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
