"""A simulated cluster around the pure core: decisions become pods, pods become the next snapshot."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kedge.api import specs
from kedge.api.conditions import ConditionType, Reason
from kedge.api.levers import Levers
from kedge.api.statuses import ModelDeploymentStatus
from kedge.decide import decisions
from kedge.decide.decisions import Decision
from kedge.decide.situations import Event
from kedge.desired import revisions, routing
from kedge.desired.revisions import Revision
from kedge.observe import distributions
from kedge.observe.snapshot import EventCounts, Histogram, PodView, Sample, Snapshot, Trouble, Unmeasured, WorkloadView

START = 1_800_000_000.0


def spec(version: str = "1", **changes: Any) -> specs.ModelDeploymentSpec:
    """Returns a spec whose revision depends on `version` only."""
    rollout = {
        "steps": [{"weightPercent": 25, "minimumSeconds": 10}, {"weightPercent": 50, "minimumSeconds": 10}],
        "minimumRequests": 100,
        "stepDeadlineSeconds": 120,
        "progressDeadlineSeconds": 60,
        "guard": {"durationSeconds": 0},
    } | changes.pop("rollout", {})
    declared = {
        "replicas": 3,
        "model": {"uri": f"https://models/{version}.skops", "sha256": "a" * 64},
        "objectives": [{"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99"}],
        "metrics": {"intervalSeconds": 5},
        "rollout": rollout,
    } | changes
    return specs.ModelDeploymentSpec.model_validate(declared)


def revision_of(version: str) -> str:
    return revisions.revision_hash(spec(version))


@dataclasses.dataclass
class Counters:
    served: dict[str, EventCounts] = dataclasses.field(default_factory=dict)
    histograms: dict[str, Histogram] = dataclasses.field(default_factory=dict)
    started_at: str = "1"

    def add(self, key: str, bad: int, total: int) -> None:
        before = self.served.get(key, EventCounts(0, 0))
        self.served[key] = EventCounts(before.bad + bad, before.total + total)

    def add_rows(self, name: str, rows: Sequence[int], reference: Sequence[int]) -> None:
        bins = tuple(str(number) for number in range(len(rows)))
        before = self.histograms[name].rows if name in self.histograms else (0,) * len(rows)
        summed = tuple(map(sum, zip(before, rows, strict=True)))
        self.histograms[name] = Histogram(bins, summed, tuple(reference))


class World:
    """One ModelDeployment and its cluster. Pods become ready one tick after they are created."""

    def __init__(self, declared: specs.ModelDeploymentSpec | None = None) -> None:
        self.spec = declared or spec()
        self._declared = revisions.revision_hash(self.spec)
        self.generation = 1
        self.now = START
        self.status = ModelDeploymentStatus()
        self.workloads: dict[str, WorkloadView] = {}
        self.pods: dict[str, PodView] = {}
        self.counters: dict[str, Counters] = {}
        self.selected: str | None = None
        self.revisions: dict[str, Revision] = {}
        self.conflicts: tuple[str, ...] = ()
        self.broken: dict[str, Trouble | None] = {}
        """Revisions whose pods never become ready, with what their containers say."""
        self.unmeasurable: set[str] = set()
        self.levers = Levers()
        self.events: list[Event] = []
        self.lowest_stable_ready: int | None = None
        self._created = 0

    def declare(self, declared: specs.ModelDeploymentSpec) -> None:
        if declared != self.spec:
            self.spec = declared
            self._declared = revisions.revision_hash(declared)
            self.generation += 1

    @property
    def declared(self) -> str:
        return self._declared

    def snapshot(self) -> Snapshot:
        readable = [pod for pod in self.pods.values() if pod.ready and not pod.terminating]
        measured = [pod for pod in readable if pod.revision not in self.unmeasurable]
        samples = tuple(
            Sample(pod.uid, pod.revision, self.counters[pod.uid].started_at, dict(self.counters[pod.uid].served))
            for pod in measured
        )
        due = decisions.distributions_are_due(self.spec, self.status, self.now)
        histograms = [dict(self.counters[pod.uid].histograms) for pod in measured]
        return Snapshot(
            pods=tuple(self.pods.values()),
            workloads=dict(self.workloads),
            selected=self.selected,
            revisions=dict(self.revisions),
            samples=samples,
            distributions=distributions.total(zip(samples, histograms, strict=True)) if due else None,
            unmeasured=tuple(
                Unmeasured(pod.uid, pod.revision, f"pod {pod.name} gave no metrics")
                for pod in readable
                if pod.revision in self.unmeasurable
            ),
            conflicts=self.conflicts,
        )

    def given(self) -> decisions.Input:
        """Returns everything that the next decision depends on."""
        if self.declared not in self.revisions:
            self.revisions[self.declared] = revisions.declare(
                self.spec, default_image="server:1", sequence=len(self.revisions) + 1
            )
        return decisions.Input(
            spec=self.spec,
            generation=self.generation,
            declared=self.declared,
            selector="kedge.dev/model-deployment=churn",
            levers=self.levers,
            status=self.status,
            snapshot=self.snapshot(),
            now=self.now,
        )

    def decide(self) -> Decision:
        return decisions.decide(self.given())

    def tick(self, seconds: float = 5.0) -> Decision:
        """Decides, carries the decision out, and lets time pass."""
        decision = self.decide()
        # What the API server would store and give back.
        self.status = ModelDeploymentStatus.model_validate(decision.status.to_json())
        self.events += decision.events
        self._carry_out(decision)
        self.now += seconds
        self._let_pods_start()
        if self.status.stable_revision:
            ready = self.snapshot().ready(self.status.stable_revision)
            self.lowest_stable_ready = (
                ready if self.lowest_stable_ready is None else min(ready, self.lowest_stable_ready)
            )
        return decision

    def run_until(self, done: "Any", *, ticks: int = 100, **traffic: Any) -> None:
        for _ in range(ticks):
            if done(self):
                return
            if traffic:
                self.serve(**traffic)
            self.tick()
        raise AssertionError(f"not reached in {ticks} ticks; last: {self.status.message}")

    def serve(self, *, requests: int, bad: float = 0.0, stable_bad: float = 0.0, key: str = "availability") -> None:
        """Sends requests to the pods behind the Service; `bad` of the candidate's and `stable_bad` of the rest fail."""
        behind = [
            pod
            for pod in self.pods.values()
            if pod.ready and not pod.terminating and self.selected in {pod.revision, routing.ALL_REVISIONS}
        ]
        for index, pod in enumerate(behind):
            share = requests // len(behind) + (index < requests % len(behind))
            fraction = bad if pod.revision == self.status.candidate_revision else stable_bad
            self.counters[pod.uid].add(key, round(share * fraction), share)

    def count_rows(
        self, name: str, rows: Sequence[int], *, reference: Sequence[int], stable: Sequence[int] | None = None
    ) -> None:
        """Counts these rows by bin at each pod that runs; `stable` at those of the stable revision, if given."""
        for pod in self.pods.values():
            theirs = stable is not None and pod.revision == self.status.stable_revision
            self.counters[pod.uid].add_rows(name, stable if theirs and stable is not None else rows, reference)

    def pull(self, **levers: str) -> None:
        """Sets annotations as a person would."""
        self.levers = dataclasses.replace(self.levers, **levers)

    def hurt(self, revision: str, trouble: Trouble | None, *, restarts: int = 1) -> None:
        """Lets the pods of a revision that run fail."""
        for uid, pod in self.pods.items():
            if pod.revision == revision:
                self.pods[uid] = dataclasses.replace(
                    pod, ready=False, unready_since=self.now, restarts=restarts, trouble=trouble
                )

    def condition(self, kind: ConditionType) -> str | None:
        found = self.status.condition(kind)
        return found.status if found else None

    def reason(self, kind: ConditionType = ConditionType.READY) -> str | None:
        found = self.status.condition(kind)
        return found.reason if found else None

    def told(self, reason: Reason) -> list[str]:
        return [event.message for event in self.events if event.reason is reason]

    def _carry_out(self, decision: Decision) -> None:
        if self.conflicts:
            return
        self.selected = decision.plan.selected
        self.workloads = dict(decision.plan.workloads)
        for revision in decision.plan.forgotten:
            self.workloads.pop(revision, None)
            self.revisions.pop(revision, None)
        for revision, workload in self.workloads.items():
            self._scale(revision, workload.replicas)

    def _scale(self, revision: str, replicas: int) -> None:
        present = [uid for uid, pod in self.pods.items() if pod.revision == revision]
        for uid in present[replicas:]:
            del self.pods[uid]
        for _ in range(replicas - len(present)):
            self._created += 1
            uid = f"pod-{self._created}"
            self.counters[uid] = Counters()
            self.pods[uid] = PodView(
                uid=uid,
                name=uid,
                revision=revision,
                address="127.0.0.1",
                ready=False,
                terminating=False,
                created_at=self.now,
                unready_since=self.now,
                trouble=self.broken.get(revision),
            )

    def _let_pods_start(self) -> None:
        for uid, pod in self.pods.items():
            if pod.revision not in self.broken:
                self.pods[uid] = dataclasses.replace(pod, ready=True, unready_since=None)


def serving(version: str = "1", **changes: Any) -> World:
    """Returns a world that serves this version with all its replicas."""
    world = World(spec(version, **changes))
    world.run_until(lambda w: w.condition(ConditionType.READY) == "True")
    world.events.clear()
    return world


def in_step(index: int, version: str = "2", **changes: Any) -> World:
    """Returns a world in which `version` serves at the step of this index, with nothing counted yet."""
    world = serving(**changes)
    world.declare(spec(version, **changes))
    world.run_until(
        lambda w: (
            w.status.rollout is not None
            and w.status.rollout.phase == "Step"
            and w.status.rollout.step == index
            and w.status.rollout.serving_since is not None
        ),
        requests=400,
    )
    return world
