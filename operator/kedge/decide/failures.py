"""When a candidate's pods, rather than its answers, are reason to reject it."""

from kedge.api.conditions import Reason
from kedge.observe.snapshot import PodView, Snapshot, Trouble

PULL_GRACE_SECONDS = 30.0
"""How long a missing image or Secret may be a matter of moments: about three tries of the kubelet."""
RESTARTS_TOLERATED = 1
"""Ends of containers over all pods of a candidate that may be chance: of a node, not of the revision."""

_RETRIED_BY_KUBELET = {Reason.IMAGE_PULL_BACK_OFF, Reason.INVALID_POD}


def of(snapshot: Snapshot, revision: str, now: float) -> Trouble | None:
    """Returns why this revision's pods will not serve, or None while they may still come to it."""
    pods = snapshot.pods_of(revision)
    for pod in pods:
        if pod.trouble is not None and _is_final(pod, pod.trouble, now):
            return pod.trouble
    restarted = [pod for pod in pods if pod.restarts]
    if sum(pod.restarts for pod in restarted) <= RESTARTS_TOLERATED:
        return None
    seen = next((pod.trouble for pod in restarted if pod.trouble is not None), None)
    return seen or Trouble(Reason.CRASH_LOOP_BACK_OFF, "its containers ended more than once", permanent=True)


def _is_final(pod: PodView, trouble: Trouble, now: float) -> bool:
    if trouble.permanent:
        return True
    return trouble.reason in _RETRIED_BY_KUBELET and not pod.ready and now - pod.created_at >= PULL_GRACE_SECONDS
