"""Reads the cluster's objects into views. Pure: the objects come from the caller's cache."""

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any

from kedge.api.conditions import MODEL_SERVER_REASONS, Reason
from kedge.desired import names, workloads
from kedge.observe.snapshot import PodView, Trouble, WorkloadView

MESSAGE_LIMIT = 300
"""Characters of a container's own words that are shown."""
CRASHES_TOLERATED = 1
"""A container may end once for reasons of its node; the second time is the revision's own."""

_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
_PERMANENT_IMAGE_REASONS = {"ErrImageNeverPull", "InvalidImageName"}
_CREATION_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def pod_view(pod: dict[str, Any]) -> PodView:
    """Returns the view of a Pod object."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    readiness = next((one for one in status.get("conditions") or [] if one["type"] == "Ready"), None)
    ready = readiness is not None and readiness["status"] == "True"
    changed_at = (readiness or {}).get("lastTransitionTime") or metadata["creationTimestamp"]
    return PodView(
        uid=metadata["uid"],
        name=metadata["name"],
        revision=metadata["labels"][names.REVISION_LABEL],
        address=status.get("podIP"),
        ready=ready,
        terminating=metadata.get("deletionTimestamp") is not None or status.get("phase") in {"Failed", "Succeeded"},
        created_at=timestamp(metadata["creationTimestamp"]),
        unready_since=None if ready else timestamp(changed_at),
        restarts=sum(container.get("restartCount", 0) for container in containers),
        trouble=_first_trouble(containers),
    )


def workload_view(deployment: dict[str, Any]) -> WorkloadView:
    """Returns the view of a Deployment object of Kedge."""
    return WorkloadView(
        replicas=deployment["spec"].get("replicas", 1),
        latency_edges_milliseconds=workloads.latency_edges(deployment),
    )


def timestamp(text: str) -> float:
    """Returns seconds since the epoch for an RFC 3339 time."""
    return dt.datetime.fromisoformat(text).timestamp()


def _first_trouble(containers: Iterable[dict[str, Any]]) -> Trouble | None:
    return next((trouble for container in containers if (trouble := _trouble(container))), None)


def _trouble(container: dict[str, Any]) -> Trouble | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    waiting_reason, words = waiting.get("reason", ""), waiting.get("message", "")
    if waiting_reason in _IMAGE_REASONS:
        return Trouble(
            Reason.IMAGE_PULL_BACK_OFF,
            f"image {container['image']} cannot be pulled: {_shortened(words or waiting_reason)}",
            permanent=waiting_reason in _PERMANENT_IMAGE_REASONS,
        )
    if waiting_reason in _CREATION_REASONS:
        return Trouble(Reason.INVALID_POD, _shortened(words or waiting_reason), permanent=False)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended is None or (ended.get("exitCode") == 0 and waiting_reason != "CrashLoopBackOff"):
        return None
    return _end(container, ended)


def _end(container: dict[str, Any], ended: dict[str, Any]) -> Trouble:
    restarts = container.get("restartCount", 0)
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            Reason.OOM_KILLED, f"container {container['name']} needed more memory than its limit", permanent=True
        )
    told = _told_by_server(ended.get("message") or "")
    if told is not None:
        reason, message = told
        # A store that does not answer may come back; nothing else that the server tells changes by waiting.
        return Trouble(
            reason, message, permanent=reason is not Reason.MODEL_FETCH_FAILED or restarts > CRASHES_TOLERATED
        )
    words = _shortened(ended.get("message") or "", last=True)
    return Trouble(
        Reason.CRASH_LOOP_BACK_OFF,
        f"container {container['name']} ended with exit code {ended.get('exitCode')}" + (f": {words}" if words else ""),
        permanent=restarts > CRASHES_TOLERATED,
    )


def _told_by_server(text: str) -> tuple[Reason, str] | None:
    """Returns the reason and message that the model server left as its last words."""
    line = text.strip().splitlines()[-1] if text.strip() else ""
    try:
        told = json.loads(line)
        reason = Reason(told["reason"])
        message = str(told["message"])
    except (ValueError, KeyError, TypeError):
        return None
    return (reason, _shortened(message)) if reason in MODEL_SERVER_REASONS else None


def _shortened(text: str, *, last: bool = False) -> str:
    """Returns the text on one line, cut to what is worth showing; its end where the news stands last."""
    line = " ".join(text.split())
    if len(line) <= MESSAGE_LIMIT:
        return line
    return f"...{line[-MESSAGE_LIMIT:]}" if last else f"{line[:MESSAGE_LIMIT]}..."
