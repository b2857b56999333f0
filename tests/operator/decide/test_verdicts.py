from typing import Any

import pytest
from tests.operator.worlds import World, revision_of, serving, spec

from kedge.api.statuses import ObjectiveStatus

ONE, TWO = revision_of("1"), revision_of("2")


def judged(objective: dict[str, Any], *, key: str, bad: float, stable_bad: float = 0.0, ticks: int = 12) -> World:
    """Returns the world after users have sent 400 events a poll, of which the candidate's are bad so often."""
    declared: dict[str, Any] = {"objectives": [{"name": "it", **objective}]}
    world = serving(**declared)
    world.declare(spec("2", **declared))
    for _ in range(ticks):
        world.serve(requests=400)
        world.serve(requests=400, bad=bad, stable_bad=stable_bad, key=key)
        world.tick()
    return world


def verdict(world: World) -> ObjectiveStatus:
    return next(one for one in world.status.objectives if one.name == "it")


@pytest.mark.parametrize(
    ("kind", "key", "words"),
    [
        ("ValidInputs", "validinputs", "rows were outside the profile"),
        ("Feedback", "feedback", "labelled predictions were wrong"),
        ("Availability", "availability", "requests failed"),
    ],
)
def test_every_ratio_is_judged_alike_and_told_in_its_own_words(kind: str, key: str, words: str) -> None:
    objective = {"indicator": {"type": kind}, "targetPercent": "98"}
    good = judged(objective, key=key, bad=0.005)
    assert good.status.stable_revision == TWO
    assert words in verdict(good).message
    bad = judged(objective, key=key, bad=0.2)
    assert bad.status.stable_revision == ONE
    assert words in bad.status.rejected_revisions[-1].message


def test_wrong_answers_that_stable_gives_too_are_not_the_candidates_fault() -> None:
    objective = {"indicator": {"type": "Feedback"}, "compareTo": "Stable", "tolerancePercent": "1"}
    world = judged(objective, key="feedback", bad=0.2, stable_bad=0.2, ticks=40)
    assert world.status.stable_revision == TWO


def test_labels_that_have_not_come_yet_hold_the_step() -> None:
    objective = {"indicator": {"type": "Feedback"}, "targetPercent": "90"}
    world = judged(objective, key="availability", bad=0.0)
    assert verdict(world).verdict == "ProviderError"
    for uid in world.counters:
        world.counters[uid].add("feedback", 0, 1)
    world.tick()
    assert verdict(world).verdict == "InsufficientData"
    assert "1 of 100 labelled predictions in this step" in verdict(world).message


def test_inputs_that_nobody_checks_are_told_with_the_remedy() -> None:
    world = judged({"indicator": {"type": "ValidInputs"}, "targetPercent": "98"}, key="availability", bad=0.0)
    assert verdict(world).verdict == "ProviderError"
    assert "kedge-server package --reference" in verdict(world).message


def test_a_verdict_shows_the_evidence_the_threshold_and_the_chance_it_was_given() -> None:
    objectives = [
        {"name": name, "indicator": {"type": "Availability"}, "targetPercent": target}
        for name, target in (("it", "99"), ("other", "95"))
    ]
    world = serving(objectives=objectives)
    world.declare(spec("2", objectives=objectives))
    world.run_until(lambda w: bool(w.status.objectives) and w.status.objectives[0].requests > 0, requests=400)
    found = verdict(world)
    assert found.alpha_percent == "0.5"
    assert float(found.log_threshold or 0) == pytest.approx(5.2983, abs=1e-4)
    assert float(found.log_e_value or 0) < 0


def evidence_after_four_polls(*, past: int) -> float:
    """Returns the log e-value of a candidate that fails a fifth of its requests, as stable's past are 1 % bad."""
    objective = {
        "name": "it",
        "indicator": {"type": "Availability"},
        "compareTo": "Stable",
        "tolerancePercent": "0",
    }
    world = serving(objectives=[objective])
    for uid in world.pods:
        world.counters[uid].add("availability", past // 100, past)
    world.declare(spec("2", objectives=[objective]))
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.serving_since is not None)
    for _ in range(4):
        world.serve(requests=20, bad=0.2, stable_bad=0.01)
        world.tick()
    return float(verdict(world).log_e_value or 0)


def test_a_comparison_starts_with_what_stable_did_before() -> None:
    assert evidence_after_four_polls(past=5000) > evidence_after_four_polls(past=0) + 0.2


def test_what_stable_did_before_is_no_evidence_by_itself() -> None:
    assert evidence_after_four_polls(past=10**9) < evidence_after_four_polls(past=0) + 1
