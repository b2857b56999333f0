"""The benchmark judges by the rules it says it does, and by the operator's own functions."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.decisions import against_stable, detection, limits, page, rules, traffic, watch

from kedge.decide.statistics import ratio

BUDGET = 0.1
MINUTE = traffic.POLLS_A_MINUTE


def _minutes(*windows: tuple[int, int]) -> tuple[traffic.Ints, traffic.Ints]:
    """Cumulated counts of one run whose minutes have these bad and all requests, in each minute's first poll."""
    bad, total = (np.zeros((1, len(windows) * MINUTE), dtype=np.int64) for _ in range(2))
    bad[0, ::MINUTE], total[0, ::MINUTE] = zip(*windows, strict=True)
    return bad.cumsum(axis=1)[None], total.cumsum(axis=1)


@pytest.mark.parametrize(
    ("rule", "windows", "minute"),
    [
        pytest.param(rules.argo(0), [(1, 10), (2, 10), (0, 10)], 2, id="one breach aborts at failureLimit 0"),
        pytest.param(rules.argo(0), [(1, 10), (0, 0), (1, 10)], None, id="neither the limit itself nor silence"),
        pytest.param(rules.argo(1), [(2, 10), (0, 10), (2, 10)], 3, id="failureLimit counts breaches, not in a row"),
        pytest.param(rules.flagger(2), [(2, 10), (0, 10), (2, 10)], 3, id="passes do not reset Flagger's counter"),
        pytest.param(rules.flagger(2), [(0, 10), (0, 0), (0, 0)], 3, id="Flagger fails a check without data"),
        pytest.param(rules.z_test, [(1, 10), (1, 10)], None, id="the z-test passes what is at the budget"),
        pytest.param(rules.kedge, [(1, 10), (1, 10)], None, id="so does Kedge"),
    ],
)
def test_rules_roll_back_when_they_say(rule: rules.Rule, windows: list[tuple[int, int]], minute: int | None) -> None:
    found = rule(*_minutes(*windows), BUDGET)

    assert found.tolist() == [rules.NEVER if minute is None else minute * MINUTE - 1]


def test_kedge_is_judged_by_the_operators_function() -> None:
    rng = np.random.default_rng(1)
    total = rng.poisson(5, (40, 60)).cumsum(axis=1)
    bad = rng.binomial(5, 0.15, (2, 40, 60)).cumsum(axis=2)
    bad = np.minimum(bad, total)

    found = rules.kedge(bad, total, BUDGET)

    for run in range(40):
        polls = (
            poll
            for poll in range(60)
            if any(ratio.log_e_value(b, total[run, poll], BUDGET) >= np.log(2 / rules.ALPHA) for b in bad[:, run, poll])
        )
        assert found[run] == next(polls, rules.NEVER)


def test_many_runs_at_once_are_the_operators_updates() -> None:
    against_stable.check_mirror(seed=3)
    watch.check_mirror(seed=3)


def test_only_bad_events_reject_so_the_boundary_says_all() -> None:
    largest = detection._boundary(30, BUDGET, np.log(100))

    for bad, total in enumerate(largest, start=1):
        if total:
            assert ratio.log_e_value(bad, total, BUDGET) >= np.log(100) > ratio.log_e_value(bad, total + 1, BUDGET)
        else:
            assert ratio.log_e_value(bad, bad, BUDGET) < np.log(100)


def test_limits_are_those_of_the_books() -> None:
    assert limits.clopper_pearson(0, 100) == pytest.approx((0.0, 0.0362), abs=1e-4)
    assert limits.clopper_pearson(10, 100) == pytest.approx((0.0490, 0.1762), abs=1e-4)
    assert limits.clopper_pearson(100, 100)[1] == 1.0
    assert limits.median([3.0, 1.0, 2.0, np.inf, 5.0])[0] == 3.0


def test_the_page_is_that_of_the_stored_results(tmp_path: Path) -> None:
    folder = Path(__file__).parents[4] / "docs" / "decisions"
    page.write(json.loads((folder / "results.json").read_text()), tmp_path / "README.md")

    assert (tmp_path / "README.md").read_text() == (folder / "README.md").read_text(), (
        "run: python -m benchmarks.decisions --page-only"
    )
