"""The story: version 1 serves live traffic, version 2 is promoted, versions 3 and 4 are rolled back.

Each part returns what it saw. Nothing here judges it: `expectations` does.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable

from hack.demo.screen import Screen
from hack.lab import errors, examples, journal
from hack.lab.journal import Journal, Object
from hack.lab.kubectl import Kubectl
from hack.lab.traffic import Report, Traffic

NAME = "digits"
RATE = 40.0
"""Requests a second: the steps of the manifests then pass within seconds."""
FRESH_PERCENT = 80.0
"""Requests over a connection of their own: those follow the weights at once, kept connections stay where they are."""
TRAFFIC_SECONDS = 600.0
SERVE_SECONDS = 120.0
ROLLOUT_SECONDS = 180.0
LOOK_SECONDS = 0.5
AFTERWARDS = 120
"""Requests that are sent after each rollback, to see that all is well again."""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One rollout: when it began, how long it took, what status said at its end, and what users had met by then."""

    began: float
    seconds: float
    status: Object
    users: Report | None


@dataclasses.dataclass(frozen=True)
class Story:
    """All that happened."""

    first: Chapter
    better: Chapter
    bad: Chapter
    silent: Chapter
    """The version that answers wrongly without any error."""
    calm: Report
    """What users had met before that one came."""
    users: Report
    lowest_ready: int
    """The least number of ready pods of the stable version while the bad one was tried."""


class Stage:
    """Plays one rollout after another in front of a person."""

    def __init__(self, kubectl: Kubectl, folder: pathlib.Path, screen: Screen) -> None:
        self._kubectl = kubectl
        self._folder = folder
        self._screen = screen
        self._journal = Journal(kubectl)
        self._users = Traffic(kubectl)

    def play(self) -> Story:
        """Plays it all."""
        self._journal.start()
        try:
            first = self._declare("v1", _is_ready, within=SERVE_SECONDS)
            self._screen.say(f"v1 serves as {first.status['stableRevision']} after {first.seconds:.0f} s")
            self._users.start(
                self._folder / "rows.json", rate=RATE, seconds=TRAFFIC_SECONDS, fresh_percent=FRESH_PERCENT
            )
            self._users.wait(lambda report: report.outcome("ok") > 0, within=30, what="an answer")
            self._screen.say(f"users send {RATE:g} real rows a second")
            better = self._declare("v2", _is_ready, within=ROLLOUT_SECONDS)
            self._screen.say(f"v2 is promoted as {better.status['stableRevision']} after {better.seconds:.0f} s")
            bad = self._declare("v3", _is_rolled_back, within=ROLLOUT_SECONDS)
            self._screen.say(f"v3 is rolled back after {bad.seconds:.0f} s")
            self._wait_for_no_pods_of(bad.status["rejectedRevisions"][-1]["revision"])
            calm = self._users.wait_for_answers(AFTERWARDS)
            silent = self._declare("v4", _is_rolled_back, within=ROLLOUT_SECONDS)
            self._screen.say(f"v4 is rolled back after {silent.seconds:.0f} s, without a single error")
            self._wait_for_no_pods_of(silent.status["rejectedRevisions"][-1]["revision"])
            self._users.wait_for_answers(AFTERWARDS)
            return Story(
                first=first,
                better=better,
                bad=bad,
                silent=silent,
                calm=calm,
                users=self._users.stop(),
                lowest_ready=self._journal.lowest_ready(bad.status["stableRevision"], since=bad.began),
            )
        finally:
            self._users.close()
            self._journal.stop()

    def _declare(self, version: str, holds: Callable[[Object], bool], *, within: float) -> Chapter:
        self._screen.say(f"kubectl apply -f {version}.yaml")
        began = time.time()
        self._kubectl.apply(*examples.manifests(self._folder / f"{version}.yaml"))
        deadline = began + within
        while True:
            try:
                status = self._journal.wait(NAME, holds, within=LOOK_SECONDS, what=f"the end of {version}")
            except errors.NotInTimeError:
                if time.time() > deadline:
                    raise
                self._screen.live(f"{version}: {_told(self._journal.status(NAME))}; {_met(self._users.last)}")
                continue
            return Chapter(began, time.time() - began, status, self._users.last)

    def _wait_for_no_pods_of(self, revision: str) -> None:
        self._journal.wait(
            NAME, lambda _: not self._journal.pods(revision), within=SERVE_SECONDS, what=f"no pods of {revision}"
        )


def _is_ready(status: Object) -> bool:
    return journal.conditions(status).get("Ready") == "True"


def _is_rolled_back(status: Object) -> bool:
    return journal.conditions(status).get("RolledBack") == "True"


def _told(status: Object) -> str:
    rollout = status.get("rollout")
    if not rollout:
        return str(status.get("message") or "not seen yet")
    share = f", weight {rollout.get('weightPercent', 0)} %" if rollout["phase"] == "Step" else ""
    served = f" (served {rollout['achievedPercent']} %)" if rollout.get("achievedPercent") else ""
    verdicts = ", ".join(f"{one['name']} {one['verdict']}" for one in status.get("objectives") or [])
    return f"{rollout['phase']}{share}{served}" + (f"; {verdicts}" if verdicts else "")


def _met(report: Report | None) -> str:
    return "no users yet" if report is None else f"{report.outcome('ok')} answered, {report.lost} lost"
