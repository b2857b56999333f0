"""How many pods a step needs, and which pods take traffic."""

from kedge.api import specs

FULL_WEIGHT = 100


def candidate_replicas(weight_percent: int, stable_replicas: int) -> int:
    """Returns how many candidate pods give the nearest share to `weight_percent`.

    The stable revision keeps all its pods during a rollout, so a weight below 100 is the candidate's share
    of the pods behind the Service: at least one pod, and never more than the stable revision has, which
    bounds the surge at twice the declared replicas and the share at one half. At 100 the Service selects
    the candidate alone.
    """
    if weight_percent >= FULL_WEIGHT:
        return stable_replicas
    exact = stable_replicas * weight_percent / (FULL_WEIGHT - weight_percent)
    return min(stable_replicas, max(1, round(exact)))


def step_at(rollout: specs.Rollout, index: int) -> specs.Step | None:
    """Returns the step of this index, or None past the last one."""
    return rollout.steps[index] if index < len(rollout.steps) else None
