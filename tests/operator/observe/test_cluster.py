import json
from typing import Any

import pytest

from kedge.api.conditions import Reason
from kedge.observe import cluster


def pod(
    *containers: dict[str, Any],
    init: list[dict[str, Any]] | None = None,
    ready: str | None = "True",
    **metadata: Any,
) -> dict[str, Any]:
    status: dict[str, Any] = {"containerStatuses": list(containers), "podIP": "10.0.0.1"}
    if init:
        status["initContainerStatuses"] = init
    if ready is not None:
        status["conditions"] = [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-24T10:00:30Z"}]
    return {
        "metadata": {
            "uid": "u",
            "name": "p",
            "labels": {"kedge.dev/revision": "r"},
            "creationTimestamp": "2026-11-24T10:00:00Z",
            **metadata,
        },
        "status": status,
    }


def container(name: str = "server", restarts: int = 0, **state: Any) -> dict[str, Any]:
    last = state.pop("last", None)
    found = {"name": name, "image": "server:1", "restartCount": restarts, "state": state}
    if last is not None:
        found["lastState"] = {"terminated": last}
    return found


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def last_words(reason: str, message: str = "it says why") -> str:
    return "some log line\n" + json.dumps({"reason": reason, "message": message})


RUNNING: Any = {"running": {"startedAt": "2026-11-24T10:00:01Z"}}

TROUBLES = [
    ("running", container(**RUNNING), None, False),
    ("starting", container(**waiting("ContainerCreating")), None, False),
    ("back-off", container(**waiting("ImagePullBackOff", "Back-off pulling")), Reason.IMAGE_PULL_BACK_OFF, False),
    ("no such image", container(**waiting("ErrImagePull", "not found")), Reason.IMAGE_PULL_BACK_OFF, False),
    ("bad image name", container(**waiting("InvalidImageName")), Reason.IMAGE_PULL_BACK_OFF, True),
    ("never pulled", container(**waiting("ErrImageNeverPull")), Reason.IMAGE_PULL_BACK_OFF, True),
    ("no secret", container(**waiting("CreateContainerConfigError", "secret x")), Reason.INVALID_POD, False),
    (
        "killed for memory",
        container(restarts=1, last={"exitCode": 137, "reason": "OOMKilled"}, **RUNNING),
        Reason.OOM_KILLED,
        True,
    ),
    (
        "ended once",
        container(restarts=1, last={"exitCode": 1, "reason": "Error"}, **RUNNING),
        Reason.CRASH_LOOP_BACK_OFF,
        False,
    ),
    (
        "ended twice",
        container(restarts=2, last={"exitCode": 1, "reason": "Error"}, **waiting("CrashLoopBackOff")),
        Reason.CRASH_LOOP_BACK_OFF,
        True,
    ),
    (
        "another artifact",
        container(restarts=0, terminated={"exitCode": 1, "message": last_words("ModelDigestMismatch")}),
        Reason.MODEL_DIGEST_MISMATCH,
        True,
    ),
    (
        "store does not answer",
        container(restarts=1, last={"exitCode": 1, "message": last_words("ModelFetchFailed")}, **RUNNING),
        Reason.MODEL_FETCH_FAILED,
        False,
    ),
    (
        "store never answers",
        container(restarts=2, last={"exitCode": 1, "message": last_words("ModelFetchFailed")}, **RUNNING),
        Reason.MODEL_FETCH_FAILED,
        True,
    ),
    (
        "claims a reason that is not the server's",
        container(restarts=2, last={"exitCode": 1, "message": last_words("Promoted")}, **RUNNING),
        Reason.CRASH_LOOP_BACK_OFF,
        True,
    ),
    ("done", container(terminated={"exitCode": 0, "reason": "Completed"}), None, False),
    (
        "ends well again and again",
        container(restarts=3, last={"exitCode": 0, "reason": "Completed"}, **waiting("CrashLoopBackOff")),
        Reason.CRASH_LOOP_BACK_OFF,
        True,
    ),
]


@pytest.mark.parametrize(("name", "status", "reason", "permanent"), TROUBLES, ids=[row[0] for row in TROUBLES])
def test_the_containers_tell_why_a_pod_does_not_serve(
    name: str, status: dict[str, Any], reason: Reason | None, permanent: bool
) -> None:
    trouble = cluster.pod_view(pod(status)).trouble
    assert (trouble.reason if trouble else None) is reason
    assert (trouble.permanent if trouble else False) is permanent


def test_an_init_container_tells_first() -> None:
    fetch = container("fetch-model", terminated={"exitCode": 1, "message": last_words("ModelDigestMismatch", "no")})
    trouble = cluster.pod_view(pod(container(**waiting("PodInitializing")), init=[fetch])).trouble
    assert trouble is not None
    assert (trouble.reason, trouble.message) == (Reason.MODEL_DIGEST_MISMATCH, "no")


@pytest.mark.parametrize(
    ("given", "ready", "unready_since"),
    [(pod(ready="True"), True, None), (pod(ready="False"), False, 30.0), (pod(ready=None), False, 0.0)],
)
def test_readiness_is_told_with_its_time(given: dict[str, Any], ready: bool, unready_since: float | None) -> None:
    view = cluster.pod_view(given)
    assert view.ready is ready
    since = None if view.unready_since is None else view.unready_since - view.created_at
    assert since == unready_since


def test_a_pod_that_is_deleted_or_has_ended_is_terminating() -> None:
    assert cluster.pod_view(pod(deletionTimestamp="2026-11-24T10:01:00Z")).terminating
    evicted = pod()
    evicted["status"]["phase"] = "Failed"
    assert cluster.pod_view(evicted).terminating
    assert not cluster.pod_view(pod()).terminating


def test_a_pod_without_any_status_is_just_not_ready() -> None:
    bare = pod()
    del bare["status"]
    view = cluster.pod_view(bare)
    assert not view.ready
    assert view.address is None


def test_a_containers_own_words_are_bounded() -> None:
    ended = container(restarts=2, last={"exitCode": 1, "message": "x" * 5000 + " the end"}, **RUNNING)
    trouble = cluster.pod_view(pod(ended)).trouble
    assert trouble is not None
    assert len(trouble.message) < 400
    assert trouble.message.endswith("the end")
