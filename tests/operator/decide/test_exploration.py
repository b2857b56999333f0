"""Every state that a small rollout can reach, and the invariants of the architecture in each of them.

Traffic is decisive (all good, all bad, or none), so that the evidence has few values; time passes in steps
that cross one deadline or none. What people, pods and metrics can do is tried in every state.
"""

import collections
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.operator import worlds
from tests.operator.worlds import World

from kedge.api.conditions import ConditionType, Reason
from kedge.decide import times
from kedge.desired import routing
from kedge.observe.snapshot import Trouble

REPLICAS = 2
MINIMUM, PROGRESS, STEP, GUARD = 10, 30, 60, 100
"""Seconds: minimum of a step, and the three deadlines."""
PEOPLE = {Reason.PAUSED, Reason.WAITING_FOR_APPROVAL, Reason.OBJECTIVE_ON_HOLD}
CRASH = Trouble(Reason.OOM_KILLED, "killed", permanent=True)


@dataclasses.dataclass(frozen=True)
class Configuration:
    name: str
    rollout: dict[str, Any]
    action: str = "Rollback"

    def spec(self, version: str) -> Any:
        rollout = {
            "steps": [{"weightPercent": 50, "minimumSeconds": MINIMUM}],
            "minimumRequests": 100,
            "stepDeadlineSeconds": STEP,
            "progressDeadlineSeconds": PROGRESS,
            "guard": {"durationSeconds": 0},
        } | self.rollout
        objective = {"name": "a", "indicator": {"type": "Availability"}, "targetPercent": "99", "action": self.action}
        return worlds.spec(version, replicas=REPLICAS, objectives=[objective], rollout=rollout)


CONFIGURATIONS = [
    Configuration("hold", {}),
    Configuration("roll back without data", {"onInsufficientData": "RollBack"}),
    Configuration("promote without data", {"onInsufficientData": "Promote"}),
    Configuration("observe", {"enforcement": "Observe"}),
    Configuration("objective holds", {}, action="Hold"),
    Configuration("guard", {"guard": {"durationSeconds": GUARD, "warmReplicas": 1}}),
    Configuration(
        "two steps with approval",
        {
            "steps": [
                {"weightPercent": 50, "minimumSeconds": MINIMUM, "approval": "Required"},
                {"weightPercent": 100, "minimumSeconds": MINIMUM},
            ]
        },
    ),
]


class Explored(World):
    """A world that remembers what was done to it, for the invariants."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration.spec("1"))
        self.configuration = configuration
        self.failed_users: set[str] = set()
        self.served_well: set[str] = set()
        self.asked_again: set[str] = set()
        """Rejected revisions that the user asked for again since."""

    def branch(self) -> "Explored":
        other = copy.copy(self)
        for name in ("workloads", "pods", "revisions", "broken"):
            setattr(other, name, dict(getattr(self, name)))
        other.counters = {
            uid: worlds.Counters(dict(counted.served), started_at=counted.started_at)
            for uid, counted in self.counters.items()
        }
        other.events = []
        for name in ("unmeasurable", "failed_users", "served_well", "asked_again"):
            setattr(other, name, set(getattr(self, name)))
        return other

    def key(self) -> Any:
        status, rollout = self.status, self.status.rollout
        passed = functools.partial(self._passed, rollout)
        memory = rollout.memory if rollout else None
        pods = collections.Counter((pod.revision, pod.ready, pod.trouble is not None) for pod in self.pods.values())
        return (
            self.declared,
            self.levers,
            status.stable_revision,
            status.candidate_revision,
            status.previous_revision,
            tuple((one.revision, one.reason, one.retry_token) for one in status.rejected_revisions),
            tuple((one.type, one.status, one.reason) for one in status.conditions),
            rollout
            and (
                rollout.phase,
                rollout.step,
                rollout.serving_since is not None,
                passed("serving_since", MINIMUM),
                passed("serving_since", STEP),
                passed("phase_started_at", PROGRESS),
                passed("phase_started_at", GUARD),
            ),
            memory
            and (
                memory.failed_objectives,
                tuple((one.revision, one.step_total >= 100, one.bad > 0) for one in memory.counts),
            ),
            tuple(sorted(pods.items())),
            tuple(sorted((revision, view.replicas) for revision, view in self.workloads.items())),
            self.selected,
            frozenset(self.broken),
            frozenset(self.unmeasurable),
        )

    def _passed(self, rollout: Any, field: str, seconds: float) -> bool:
        since = getattr(rollout, field)
        return since is not None and self.now - times.seconds(since) >= seconds


Action = Callable[[Explored], None]


def traffic(bad: float) -> Action:
    def act(world: Explored) -> None:
        judged = world.status.candidate_revision or world.status.stable_revision
        reached = world.selected in {judged, routing.ALL_REVISIONS}
        if judged is not None and reached and world.snapshot().ready(judged):
            (world.failed_users if bad else world.served_well).add(judged)
        stable_bad = bad if world.status.candidate_revision is None else 0.0
        world.serve(requests=2000, bad=bad, stable_bad=stable_bad)
        world.tick(MINIMUM)

    return act


def wait(seconds: float) -> Action:
    def act(world: Explored) -> None:
        world.tick(0.0)
        world.now += seconds
        world.tick(0.0)

    return act


def declare(version: str) -> Action:
    def act(world: Explored) -> None:
        world.declare(world.configuration.spec(version))
        world.tick()

    return act


def pull(**levers: str) -> Action:
    def act(world: Explored) -> None:
        if "retry" in levers and world.levers.retry != levers["retry"]:
            world.asked_again.add(world.declared)
        world.pull(**levers)
        world.tick()

    return act


def pass_over(world: Explored) -> None:
    world.tick()


def break_pods(world: Explored) -> None:
    judged = world.status.candidate_revision
    if judged is not None:
        world.broken[judged] = CRASH
        world.hurt(judged, CRASH)
    world.tick()


def never_ready(world: Explored) -> None:
    if world.status.candidate_revision is not None and not world.snapshot().ready(world.status.candidate_revision):
        world.broken[world.status.candidate_revision] = None
        world.hurt(world.status.candidate_revision, None, restarts=0)
    world.tick()


def lose_metrics(world: Explored) -> None:
    if world.status.candidate_revision is not None:
        world.unmeasurable ^= {world.status.candidate_revision}
    world.tick()


TWO = worlds.revision_of("2")
ACTIONS: dict[str, Action] = {
    "tick": pass_over,
    "good traffic": traffic(0.0),
    "bad traffic": traffic(1.0),
    "a deadline passes": wait(STEP + 1),
    "the guard's time passes": wait(GUARD + 1),
    "declare 1": declare("1"),
    "declare 2": declare("2"),
    "pods crash": break_pods,
    "pods are never ready": never_ready,
    "metrics are lost or found": lose_metrics,
    "abort 2": pull(abort=TWO),
    "retry": pull(retry="again"),
    "approve 2": pull(approve=f"{TWO}/1", abort=""),
}


def explore(configuration: Configuration) -> Iterator[tuple[Explored, str, Explored]]:
    """Yields every transition between reachable states, once."""
    first = Explored(configuration)
    seen = {first.key()}
    waiting = collections.deque([first])
    while waiting:
        before = waiting.popleft()
        for name, action in ACTIONS.items():
            after = before.branch()
            action(after)
            yield before, name, after
            if after.key() not in seen:
                seen.add(after.key())
                waiting.append(after)


def check_a_wait_is_named(world: Explored) -> None:
    """Every state names in its condition what it waits for."""
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason
    assert ready.message
    if ready.status != "True":
        assert ConditionType.RECONCILING in {one.type for one in world.status.conditions} or (
            ConditionType.STALLED in {one.type for one in world.status.conditions}
        )


def check_only_evidence_rejects(before: Explored, after: Explored) -> None:
    """Ignorance is neither success nor failure."""
    known = {one.revision for one in before.status.rejected_revisions}
    for rejected in after.status.rejected_revisions:
        if rejected.revision not in known and rejected.reason == Reason.OBJECTIVE_FAILED:
            assert rejected.revision in after.failed_users


def check_only_judged_revisions_are_promoted(before: Explored, after: Explored) -> None:
    """Nothing is promoted over a working revision that was not measured, unless the user said so."""
    promoted = after.status.stable_revision
    if before.status.stable_revision in {None, promoted}:
        return
    if before.status.previous_revision == promoted or after.spec.rollout.on_insufficient_data == "Promote":
        return
    assert promoted in after.served_well | after.failed_users
    if after.spec.rollout.enforcement == "Enforce":
        assert promoted in after.served_well


def check_a_rejected_revision_stays_away(after: Explored) -> None:
    """A rejected revision is never served again until the user asks for it."""
    for rejected in after.status.rejected_revisions:
        assert rejected.revision not in {after.status.stable_revision, after.status.candidate_revision}
        assert after.selected != rejected.revision
        if after.selected == routing.ALL_REVISIONS:
            assert after.workloads[rejected.revision].replicas == 0


def check_the_floor_holds(before: Explored, after: Explored) -> None:
    """The stable revision's pods never become fewer than what was serving before the rollout."""
    stable = after.status.stable_revision
    if stable is None:
        return
    assert after.workloads[stable].replicas == REPLICAS
    if before.status.stable_revision == stable and before.snapshot().ready(stable) == REPLICAS:
        assert after.snapshot().ready(stable) == REPLICAS


def check_time_alone_ends_every_wait(world: Explored) -> None:
    """No state is left only by luck: without news a rollout ends, or says that it needs the user."""
    alone = world.branch()
    for _ in range(6):
        rollout = alone.status.rollout
        if rollout is None:
            return
        ready = alone.reason()
        if alone.condition(ConditionType.STALLED) == "True" or ready in PEOPLE:
            return
        wait(GUARD + 1)(alone)
    raise AssertionError(f"still {alone.status.message}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda configuration: configuration.name)
def test_the_invariants_hold_in_every_reachable_state(configuration: Configuration) -> None:
    states, transitions = set(), 0
    for before, name, after in explore(configuration):
        transitions += 1
        try:
            check_a_wait_is_named(after)
            check_only_evidence_rejects(before, after)
            check_only_judged_revisions_are_promoted(before, after)
            check_a_rejected_revision_stays_away(after)
            check_the_floor_holds(before, after)
            if after.key() not in states:
                states.add(after.key())
                check_time_alone_ends_every_wait(after)
        except AssertionError as broken:
            raise AssertionError(f"after {name!r} from {before.status.message!r}: {after.status.message!r}") from broken
    print(f"{len(states)} states, {transitions} transitions")
    assert len(states) > 100
