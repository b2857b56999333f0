"""Writes the status of a ModelDeployment: the only place that does."""

from kedge import kubernetes_api
from kedge.api.statuses import ModelDeploymentStatus
from kedge.kubernetes_api import KubernetesApi, ObjectDict


async def write(api: KubernetesApi, resource: ObjectDict, status: ModelDeploymentStatus) -> ObjectDict | None:
    """Writes the status over that of the object as it was read; returns the new object, or None if nothing changed.

    Raises:
        ConflictError: The object has changed since it was read, so the decision is out of date.
    """
    content = status.to_json()
    if resource.get("status") == content:
        return None
    return await api.replace(kubernetes_api.MODEL_DEPLOYMENTS, {**resource, "status": content}, subresource="status")
