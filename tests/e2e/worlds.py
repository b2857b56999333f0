"""What one end-to-end test plays in: a namespace, models to declare, users, and a record of all that happened."""

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from hack.lab import journal
from hack.lab.journal import Journal, Object
from hack.lab.kubectl import Kubectl
from hack.lab.store import Artifact
from hack.lab.traffic import Report, Traffic
from tests.e2e.manifests import model_deployment
from tests.e2e.models import Models

NAME = "digits"
REPLICAS = 2
SERVE_SECONDS = 90.0
ROLLOUT_SECONDS = 120.0

PLAIN: dict[str, Any] = {
    "replicas": REPLICAS,
    "server.resources": {"requests": {"cpu": "20m", "memory": "160Mi"}, "limits": {"memory": "512Mi"}},
    "objectives": [{"name": "availability", "indicator": {"type": "Availability"}, "targetPercent": "99"}],
    "metrics.intervalSeconds": 1,
    "rollout.steps": [{"weightPercent": 33, "minimumSeconds": 3}],
    "rollout.minimumRequests": 30,
    "rollout.stepDeadlineSeconds": 90,
    "rollout.progressDeadlineSeconds": 90,
    "rollout.guard": {"durationSeconds": 0},
}
"""The shortest sensible rollout: one step with one candidate pod beside two stable ones, and no guard after it."""

READY = {"Ready": "True", "Available": "True", "Degraded": "False", "RolledBack": "False"}
REJECTED = {
    "Available": "True",
    "RolledBack": "True",
    "Degraded": "True",
    "Stalled": "True",
    "Ready": "False",
}


class World:
    """One test's namespace."""

    def __init__(self, namespace: str, models: Models, rows: pathlib.Path) -> None:
        self.kubectl = Kubectl(namespace)
        self.journal = Journal(self.kubectl)
        self.models = models
        self._rows = rows
        self._traffic: list[Traffic] = []

    def close(self) -> None:
        """Ends what runs on this machine."""
        self.journal.stop()
        for traffic in self._traffic:
            traffic.close()

    def declare(self, model: str | Artifact | Mapping[str, Any], **changes: Any) -> str:
        """Applies the ModelDeployment with this model; underscores in names of changes stand for dots."""
        if isinstance(model, str):
            model = self.models[model]
        given = model.model() if isinstance(model, Artifact) else dict(model)
        dotted = {name.replace("_", "."): value for name, value in changes.items()}
        manifest = model_deployment(PLAIN | dotted | {"model": given}, name=NAME, namespace=self.kubectl.namespace)
        return self.kubectl.run("apply", "--filename=-", stdin=manifest)

    def annotate(self, key: str, value: str) -> None:
        """Sets an annotation of the ModelDeployment as a person would."""
        self.kubectl.run("annotate", "--overwrite", f"modeldeployment/{NAME}", f"{key}={value}")

    def kedge(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the `kedge` command in the namespace and returns what it said, also when it failed."""
        command = [sys.executable, "-m", "kedge.cli", *words]
        if words[0] != "replay":
            command.append(f"--namespace={self.kubectl.namespace}")
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def finished_record(self, revision: str, outcome: str) -> Object:
        """Waits until a revision's rollout has left such a record, and checks what every record promises."""
        self.journal.wait(
            NAME,
            lambda _: outcome in {one["record"]["outcome"] for one in self.journal.finished_records(revision)},
            within=30,
            what=f"a record of {revision}, {outcome}",
        )
        records = self.journal.finished_records(revision)
        record = next(one for one in records if one["record"]["outcome"] == outcome)
        replayed = self.kedge("replay", "-", "--output=json", stdin=json.dumps(record))
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr
        (told,) = json.loads(replayed.stdout)["records"]
        assert (told["identical"], told["outcome"]) == (True, outcome)
        assert told["decisions"] > 0
        edited = self.kubectl.attempt(
            *("patch", "rolloutrecord", record["metadata"]["name"], "--type=merge"),
            '--patch={"record": {"message": "all was well"}}',
        )
        assert edited.returncode != 0
        assert "has an outcome, so it can be deleted but not changed" in edited.stderr
        content: Object = record["record"]
        return content

    def serve(self, model: str, **changes: Any) -> str:
        """Declares a first model, waits until all its replicas serve, and returns its revision."""
        self.declare(model, **changes)
        return str(self.wait_for(READY, within=SERVE_SECONDS)["stableRevision"])

    def wait_for(self, conditions: Mapping[str, str], *, within: float = ROLLOUT_SECONDS) -> Object:
        """Returns the status once its conditions are these, for the spec as it is now."""

        def holds(status: Object) -> bool:
            return conditions.items() <= journal.conditions(status).items()

        return self.journal.wait(NAME, holds, within=within, what=f"conditions {conditions}")

    def wait_for_step(self, *, within: float = 90.0) -> Object:
        """Returns the status once a candidate serves users."""
        return self.journal.wait(
            NAME,
            lambda status: bool((status.get("rollout") or {}).get("servingSince")),
            within=within,
            what="a step that serves users",
        )

    def promoted_at(self, revision: str) -> float:
        """Returns when a revision became the stable one."""
        return next(at for at, _, status in self.journal.statuses if status.get("stableRevision") == revision)

    def users(self, rows: pathlib.Path | None = None, **changed: float | str) -> Traffic:
        """Starts to send requests, with rows that no model has seen unless others are given, and waits for answers."""
        traffic = Traffic(self.kubectl, f"traffic-{len(self._traffic) + 1}")
        self._traffic.append(traffic)
        traffic.start(rows or self._rows, **changed)
        traffic.wait(lambda report: report.outcome("ok") > 0, within=30, what="an answer")
        return traffic

    def count_answers(self, number: int) -> Report:
        """Sends so many requests at least, and returns what became of them."""
        users = self.users()
        users.wait_for_answers(number)
        return users.stop()

    def event_reasons(self) -> set[str]:
        """Returns the reasons of all Events about the ModelDeployment."""
        found = self.kubectl.items("events", f"--field-selector=involvedObject.name={NAME}")
        return {event["reason"] for event in found if event["involvedObject"]["kind"] == "ModelDeployment"}

    def selected(self) -> str | None:
        """Returns the revision that the Service selects, or None for all of them."""
        selector = self.kubectl.get("service", NAME)["spec"]["selector"]
        revision: str | None = selector.get(journal.REVISION_LABEL)
        return revision

    def wait_for_no_pods_of(self, revision: str, *, within: float = 60.0) -> None:
        """Waits until the last pod of a revision is gone."""
        self.journal.wait(NAME, lambda _: not self.journal.pods(revision), within=within, what=f"no pods of {revision}")

    def wait_for_ready_pods(self, revision: str, *, other_than: str, number: int = REPLICAS) -> None:
        """Waits until so many pods of a revision are ready, none of them with that UID."""

        def holds(_: Object) -> bool:
            ready = [pod for pod in self.journal.pods(revision) if journal.is_ready(pod)]
            return len(ready) >= number and other_than not in {pod["metadata"]["uid"] for pod in ready}

        self.journal.wait(NAME, holds, within=SERVE_SECONDS, what=f"{number} other ready pods of {revision}")

    def assert_rolled_back(self, stable: str, *, reason: str, evidence: str, since: float) -> Object:
        """Waits for a rollback and checks everything that it promises; returns the rejection."""
        status = self.wait_for(REJECTED)
        told = journal.condition(status, "RolledBack")
        assert (told["reason"], evidence in told["message"]) == (reason, True), told
        for kind in ("Ready", "Degraded", "Stalled"):
            condition = journal.condition(status, kind)
            assert condition["reason"] == reason, condition
            assert evidence in condition["message"], condition
        rejected: Object = status["rejectedRevisions"][-1]
        assert rejected["revision"] in told["message"]
        assert status["stableRevision"] == stable
        assert "candidateRevision" not in status
        self.wait_for_no_pods_of(rejected["revision"])
        assert {reason, "RolledBack"} <= self.event_reasons()
        assert self.selected() == stable
        assert self.journal.lowest_ready(stable, since=since) >= REPLICAS
        return rejected

    def stable(self) -> str:
        """Returns the stable revision."""
        return str(self.journal.status(NAME)["stableRevision"])

    def wait_for_rest(self) -> Object:
        """Returns the ModelDeployment once nothing is left to do for its last rollout."""
        stable = self.stable()
        self.journal.wait(
            NAME,
            lambda status: (
                {journal.label(pod) for pod in self.journal.all_pods()} == {stable}
                and status.get("replicas") == len(self.journal.pods(stable))
            ),
            within=60,
            what=f"pods of {stable} alone",
        )
        return self.model_deployment()

    def settle(self) -> None:
        """Returns once the operator has seen all that was declared until now.

        It reconciles in the order of news, so one more model that it has come to says so.
        """
        probe = "settled"
        manifest = model_deployment(
            {"model": {"uri": "configmap://nobody/nothing"}}, name=probe, namespace=self.kubectl.namespace
        )
        self.kubectl.run("create", "--filename=-", stdin=manifest)
        self.journal.wait(probe, lambda _: True, within=60, what="to be seen")
        self.kubectl.run("delete", "modeldeployment", probe)

    def model_deployment(self) -> Object:
        """Returns the ModelDeployment as it is."""
        found: Object = self.kubectl.get("modeldeployment", NAME)
        return found

    def diagnostics(self) -> str:
        """Returns what a person would look at after a failure."""
        parts = []
        for words in (
            ("get", "modeldeployments", "--output=yaml"),
            ("get", "pods,services,deployments", "--output=wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", f"pod/traffic-{len(self._traffic)}", "--tail=2"),
        ):
            done = self.kubectl.attempt(*words)
            parts.append(f"$ kubectl {' '.join(words)}\n{done.stdout[-6000:]}{done.stderr[-500:]}")
        return "\n".join(parts)


def now() -> float:
    """Returns the time by which the journal and the traffic client count."""
    return time.time()


def as_json(value: Any) -> str:
    """Returns a value as one line."""
    return json.dumps(value, default=str)
