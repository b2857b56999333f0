"""Users of a model: the traffic client of `examples/traffic` in a pod, and what it counted."""

import copy
import dataclasses
import json
import pathlib
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from hack.lab import errors, examples
from hack.lab.kubectl import Kubectl

FOLDER = examples.EXAMPLES / "traffic"
END_SECONDS = 30.0
"""From the signal to the summary: the client's own timeout and a margin."""


@dataclasses.dataclass(frozen=True)
class Report:
    """A line of the client: what it has counted so far, or in all."""

    line: dict[str, Any]

    @property
    def is_summary(self) -> bool:
        """Whether nothing comes after it."""
        return bool(self.line["kind"] == "summary")

    @property
    def sent(self) -> int:
        """Requests that were sent."""
        return int(self.line["sent"])

    @property
    def lost(self) -> int:
        """Requests that no good answer came to, through no fault of the client."""
        return int(self.line["lost"])

    @property
    def causes(self) -> dict[str, int]:
        """Lost and refused requests by what was wrong."""
        causes: dict[str, int] = self.line["causes"]
        return causes

    def outcome(self, name: str) -> int:
        """Returns how many requests came to this: ok, client_error, server_error, connection_error, timeout."""
        return int(self.line["outcomes"].get(name, {}).get("count", 0))

    def answers(self, revision: str) -> int:
        """Returns how many good answers a revision gave."""
        return int(self.line["revisions"].get(revision, {}).get("count", 0))

    def right_percent(self, revision: str) -> float:
        """Returns the share of a revision's answers that were right."""
        span = self.line["revisions"][revision]
        return float(100 * span["right"] / span["rows"])

    def milliseconds(self, quantile: str) -> float:
        """Returns a quantile of the times to an answer: p50, p90, p99 or max."""
        return float(self.line["milliseconds"][quantile])

    def stable_answers_last(self, stable: str) -> bool:
        """Tells whether good answers of this revision came after the last of every other one."""
        last: float = self.line["revisions"].get(stable, {}).get("last") or 0.0
        others = [span["last"] for name, span in self.line["revisions"].items() if name != stable]
        others += [span["last"] for name, span in self.line["outcomes"].items() if name != "ok"]
        return all(last > other for other in others)

    def span_of(self, revision: str) -> tuple[float, float] | None:
        """Returns when a failing candidate's first and last answer came.

        A failed request names no revision, so server errors are taken for the candidate's: ask only when
        the other revision gave none.
        """
        spans = [self.line["revisions"].get(revision), self.line["outcomes"].get("server_error")]
        seen = [span for span in spans if span]
        if not seen:
            return None
        return min(span["first"] for span in seen), max(span["last"] for span in seen)


class Traffic:
    """One client pod, from `start` to `stop`."""

    def __init__(self, kubectl: Kubectl, name: str = "traffic") -> None:
        self._kubectl = kubectl
        self._name = name
        self._news = threading.Condition()
        self._reports: list[Report] = []
        self._log: list[str] = []
        self._closed = False
        self._stream: subprocess.Popen[str] | None = None
        self._follower: threading.Thread | None = None

    def start(self, rows: pathlib.Path, **changed: float | str) -> None:
        """Starts sending; keywords change or add arguments of the client, such as `rate=40`."""
        self._configure("traffic-client", FOLDER / "client.py", "client.py")
        self._configure("traffic-rows", rows, "rows.json")
        (pod,) = examples.manifests(FOLDER / "traffic.yaml")
        self._kubectl.apply(_changed(pod, self._name, changed))
        self._kubectl.run("wait", "--for=condition=Ready", f"pod/{self._name}", "--timeout=60s")
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def wait(self, holds: Callable[[Report], bool], *, within: float, what: str) -> Report:
        """Returns the first report from now on for which `holds` does.

        Raises:
            NotInTimeError: None came in time.
        """
        deadline = time.monotonic() + within
        with self._news:
            while True:
                last = self.last
                if last is not None and holds(last):
                    return last
                left = deadline - time.monotonic()
                if left <= 0 or (last is not None and last.is_summary):
                    seen = last.line if last else "".join(self._log[-5:]) or "nothing"
                    raise errors.NotInTimeError(f"traffic: not within {within:g} s: {what}; last seen: {seen}")
                self._news.wait(left)

    @property
    def last(self) -> Report | None:
        """The latest report."""
        return self._reports[-1] if self._reports else None

    @property
    def so_far(self) -> int:
        """Requests that were sent until the latest report."""
        return self.last.sent if self.last else 0

    def wait_for_answers(self, more: int = 20, within: float = 30) -> Report:
        """Waits until so many more requests were sent."""
        goal = self.so_far + more
        return self.wait(lambda report: report.sent >= goal, within=within, what=f"{more} more requests")

    def stop(self) -> Report:
        """Ends it as the kubelet would, and returns the summary."""
        self._kubectl.attempt("exec", self._name, "--", "sh", "-c", "kill -TERM 1")
        summary = self.wait(lambda report: report.is_summary, within=END_SECONDS, what="a summary")
        self.close()
        return summary

    def close(self) -> None:
        """Stops to listen, whatever the client does."""
        with self._news:
            self._closed = True
            if self._stream is not None:
                self._stream.terminate()
        if self._follower is not None:
            self._follower.join()

    def _configure(self, name: str, path: pathlib.Path, key: str) -> None:
        metadata = {"name": name}
        self._kubectl.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: path.read_text()}}
        )

    def _follow(self) -> None:
        """Reads the client's lines as they come.

        By `kubectl attach`, since following a log takes an inotify instance of the machine, of which several
        clusters together need more than there are. Each line tells everything so far, so that none that is
        missed between two streams matters, and the last one stays in the log.
        """
        while (stream := self._new_stream()) is not None:
            with stream:
                for line in stream.stdout or ():
                    self._note(line)
            for line in self._kubectl.attempt("logs", f"pod/{self._name}", "--tail=1").stdout.splitlines():
                self._note(line)

    def _new_stream(self) -> subprocess.Popen[str] | None:
        with self._news:
            if self._closed or (self.last is not None and self.last.is_summary):
                return None
            self._stream = subprocess.Popen(
                self._kubectl.command("attach", f"pod/{self._name}"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            return self._stream

    def _note(self, line: str) -> None:
        with self._news:
            if line.startswith('{"kind"'):
                self._reports.append(Report(json.loads(line)))
            else:
                self._log.append(line)
            self._news.notify_all()


def _changed(pod: examples.Manifest, name: str, changed: dict[str, float | str]) -> examples.Manifest:
    given = {f"--{key.replace('_', '-')}": value for key, value in changed.items()}
    pod = copy.deepcopy(pod)
    pod["metadata"]["name"] = name
    container = pod["spec"]["containers"][0]
    kept = [word for word in container["args"] if word.partition("=")[0] not in given]
    container["args"] = kept + [f"{key}={value}" for key, value in given.items()]
    return pod
