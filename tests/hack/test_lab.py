"""The lab's record of the cluster and of the users: what the end-to-end tests conclude from."""

import dataclasses
import threading
import time
from typing import Any

import pytest
from hack.lab import errors, journal
from hack.lab.journal import Journal
from hack.lab.kubectl import Kubectl
from hack.lab.traffic import Report


def pod(name: str, revision: str, *, ready: bool = True, terminating: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "uid": name, "labels": {journal.REVISION_LABEL: revision}}
    if terminating:
        metadata["deletionTimestamp"] = "2026-11-24T23:00:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": metadata, "status": {"conditions": conditions}}


def model(generation: int, observed: int, **status: Any) -> dict[str, Any]:
    metadata = {"name": "digits", "generation": generation}
    return {"metadata": metadata, "status": {"observedGeneration": observed, **status}}


@dataclasses.dataclass(frozen=True)
class ApiServer(Kubectl):
    """Knows one ModelDeployment, whose spec has been declared so many times."""

    generation: int = 1

    def run(self, *words: str, stdin: str | bytes | None = None) -> str:
        assert words[:3] == ("get", "modeldeployment", "digits")
        return str(self.generation)


@pytest.fixture
def record() -> Journal:
    return Journal(ApiServer("nowhere"))


def test_a_pod_that_was_unready_for_a_moment_is_not_forgotten(record: Journal) -> None:
    record._note_pod("ADDED", pod("a", "one"))
    record._note_pod("ADDED", pod("b", "one"))
    since = time.time()
    record._note_pod("MODIFIED", pod("a", "one", ready=False))
    record._note_pod("MODIFIED", pod("a", "one"))

    assert record.lowest_ready("one", since=since) == 1
    assert record.lowest_ready("one", since=time.time()) == 2


@pytest.mark.parametrize("change", [{"ready": False}, {"terminating": True}])
def test_only_ready_pods_that_stay_are_counted(record: Journal, change: dict[str, bool]) -> None:
    record._note_pod("ADDED", pod("a", "one"))
    record._note_pod("ADDED", pod("b", "one", **change))

    assert record.lowest_ready("one", since=time.time()) == 1


@pytest.mark.parametrize("last_seen", [model(2, 1), model(1, 1)], ids=["not yet observed", "not yet seen"])
def test_a_status_of_an_older_spec_says_nothing_about_this_one(last_seen: dict[str, Any]) -> None:
    record = Journal(ApiServer("nowhere", generation=2))
    record._note_model("ADDED", last_seen)
    news = threading.Timer(0.05, lambda: note(record, model(2, 2, message="new")))
    news.start()

    status = record.wait("digits", lambda _: True, within=5, what="anything")

    news.join()
    assert status.get("message") == "new"


def test_what_was_seen_instead_is_told(record: Journal) -> None:
    record._note_model("ADDED", model(1, 1, message="serving"))

    with pytest.raises(errors.NotInTimeError, match=r"not within 0\.01 s: a rollout; last seen: .*'serving'"):
        record.wait("digits", lambda _: False, within=0.01, what="a rollout")


def note(record: Journal, changed: dict[str, Any]) -> None:
    with record._news:
        record._note_model("MODIFIED", changed)
        record._news.notify_all()


def report(*, revisions: dict[str, Any], outcomes: dict[str, Any]) -> Report:
    return Report({"kind": "summary", "sent": 3, "lost": 1, "revisions": revisions, "outcomes": outcomes})


def test_a_failing_candidate_answers_from_its_first_good_or_bad_answer_to_its_last() -> None:
    counted = report(
        revisions={"bad": {"count": 1, "first": 3.0, "last": 3.0}, "good": {"count": 9, "first": 1.0, "last": 9.0}},
        outcomes={"server_error": {"count": 1, "first": 2.0, "last": 5.0}, "ok": {"count": 10, "last": 9.0}},
    )

    assert counted.span_of("bad") == (2.0, 5.0)
    assert counted.stable_answers_last("good")
    assert not counted.stable_answers_last("bad")


def test_a_candidate_that_nobody_reached_has_no_span() -> None:
    assert report(revisions={}, outcomes={}).span_of("bad") is None
