"""A record of what the cluster went through: every change of a namespace's models and pods, as it came.

It watches, so that nothing which happens between two looks is missed, and it wakes whoever waits.
"""

import dataclasses
import json
import math
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from hack.lab import errors
from hack.lab.kubectl import Kubectl

Object = dict[str, Any]

MODELS = "apis/kedge.dev/v1alpha1/namespaces/{}/modeldeployments"
PODS = "api/v1/namespaces/{}/pods"
RECORDS = "apis/kedge.dev/v1alpha1/namespaces/{}/rolloutrecords"
REVISION_LABEL = "kedge.dev/revision"


@dataclasses.dataclass(frozen=True)
class Readiness:
    """How many pods of each revision were ready, from a moment on."""

    time: float
    ready: dict[str, int]


class Journal:
    """Watches one namespace from `start` to `stop`."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._news = threading.Condition()
        self._watches: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._models: dict[str, Object] = {}
        self._pods: dict[str, Object] = {}
        self._records: dict[str, Object] = {}
        self.readiness: list[Readiness] = []
        self.statuses: list[tuple[float, str, Object]] = []
        """Time, name and status at each change of a ModelDeployment."""

    def start(self) -> None:
        """Begins to watch."""
        for resource, note in ((MODELS, self._note_model), (PODS, self._note_pod), (RECORDS, self._note_record)):
            thread = threading.Thread(target=self._watch, args=(resource, note), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Ends the watches."""
        with self._news:
            self._stopping = True
            for process in self._watches:
                process.terminate()
        for thread in self._threads:
            thread.join()

    def wait(self, name: str, holds: Callable[[Object], bool], *, within: float, what: str) -> Object:
        """Returns the status of a ModelDeployment as soon as `holds` does, for the spec as it is now or later.

        Raises:
            NotInTimeError: It did not come true in time.
            LabError: The API server does not say what has been declared.
        """
        deadline = time.monotonic() + within
        # The watch is behind whoever has just declared something: what it saw last may be the end of another rollout.
        declared = self._generation(name)
        with self._news:
            while True:
                model = self._models.get(name)
                status = (model or {}).get("status") or {}
                if model is not None and is_current(model, since=declared) and holds(status):
                    return dict(status)
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = summary(status) if model else "it does not exist"
                    raise errors.NotInTimeError(f"{name}: not within {within:g} s: {what}; last seen: {seen}")
                self._news.wait(left)

    def status(self, name: str) -> Object:
        """Returns the last seen status of a ModelDeployment."""
        with self._news:
            return dict(self._models.get(name, {}).get("status") or {})

    def pods(self, revision: str) -> list[Object]:
        """Returns the last seen pods of a revision."""
        with self._news:
            return [pod for pod in self._pods.values() if label(pod) == revision]

    def all_pods(self) -> list[Object]:
        """Returns the last seen pods of every revision."""
        with self._news:
            return [pod for pod in self._pods.values() if label(pod) is not None]

    def finished_records(self, revision: str) -> list[Object]:
        """Returns the last seen RolloutRecords of a revision that have an outcome, oldest first."""
        with self._news:
            records = [one for one in self._records.values() if one["record"]["candidate"] == revision]
        return [one for one in records if "outcome" in one["record"]]

    def lowest_ready(self, revision: str, *, since: float, until: float = math.inf) -> int:
        """Returns the least number of a revision's pods that were ready at any time in between."""
        with self._news:
            before = [one for one in self.readiness if one.time <= since][-1:]
            after = [one for one in self.readiness if since < one.time <= until]
        return min((one.ready.get(revision, 0) for one in [*before, *after]), default=0)

    def _generation(self, name: str) -> int:
        """Returns the generation that a ModelDeployment has now, or 0 when there is none."""
        told = self._kubectl.run(
            "get", "modeldeployment", name, "--ignore-not-found", "--output=jsonpath={.metadata.generation}"
        )
        return int(told or 0)

    def _watch(self, resource: str, note: Callable[[str, Object], None]) -> None:
        path = f"/{resource.format(self._kubectl.namespace)}?watch=true&allowWatchBookmarks=false"
        # A watch ends by itself after some minutes; the next one begins with all that is there.
        while (process := self._new_watch(path)) is not None:
            with process:
                for line in process.stdout or ():
                    event = json.loads(line)
                    with self._news:
                        note(event["type"], event["object"])
                        self._news.notify_all()

    def _new_watch(self, path: str) -> subprocess.Popen[str] | None:
        with self._news:
            if self._stopping:
                return None
            self._watches = [process for process in self._watches if process.poll() is None]
            process = subprocess.Popen(
                self._kubectl.command("get", "--raw", path),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._watches.append(process)
            return process

    def _note_model(self, kind: str, model: Object) -> None:
        name = model.get("metadata", {}).get("name")
        if kind == "DELETED":
            self._models.pop(name, None)
        elif kind in {"ADDED", "MODIFIED"}:
            self._models[name] = model
            self.statuses.append((time.time(), name, model.get("status") or {}))

    def _note_record(self, kind: str, record: Object) -> None:
        name = record.get("metadata", {}).get("name")
        if kind == "DELETED":
            self._records.pop(name, None)
        elif kind in {"ADDED", "MODIFIED"}:
            self._records[name] = record

    def _note_pod(self, kind: str, pod: Object) -> None:
        uid = pod.get("metadata", {}).get("uid")
        if kind == "DELETED":
            self._pods.pop(uid, None)
        elif kind in {"ADDED", "MODIFIED"}:
            self._pods[uid] = pod
        counts: dict[str, int] = {}
        for one in self._pods.values():
            revision = label(one)
            if revision is not None and is_ready(one):
                counts[revision] = counts.get(revision, 0) + 1
        self.readiness.append(Readiness(time.time(), counts))


def is_current(model: Object, *, since: int) -> bool:
    """Tells whether the status speaks of the model's spec, and the spec is of that generation at least."""
    observed = (model.get("status") or {}).get("observedGeneration")
    return bool(observed == model["metadata"]["generation"] >= since)


def is_ready(pod: Object) -> bool:
    """Tells whether a pod is ready and there to stay."""
    conditions = pod.get("status", {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and pod["metadata"].get("deletionTimestamp") is None


def label(pod: Object) -> str | None:
    """Returns the revision of a pod, or None when it serves no model."""
    revision: str | None = (pod["metadata"].get("labels") or {}).get(REVISION_LABEL)
    return revision


def conditions(status: Object) -> dict[str, str]:
    """Returns the status of each condition by its type."""
    return {one["type"]: one["status"] for one in status.get("conditions") or []}


def condition(status: Object, kind: str) -> Object:
    """Returns a whole condition; an empty one when there is none of this type."""
    return next((one for one in status.get("conditions") or [] if one["type"] == kind), {})


def summary(status: Object) -> str:
    """Returns a status in one line."""
    told = " ".join(f"{kind}={value}" for kind, value in conditions(status).items())
    reason = condition(status, "Ready").get("reason")
    return f"{told} reason={reason} message={status.get('message')!r}"
