"""Writes Events: what happened, for `kubectl describe` and whoever watches."""

import uuid

from kedge import kubernetes_api
from kedge.api import schemas
from kedge.decide import times
from kedge.decide.situations import Event
from kedge.desired.names import Owner
from kedge.kubernetes_api import KubernetesApi

CONTROLLER = f"{schemas.GROUP}/operator"
NOTE_LIMIT = 1024
"""The API server's limit on the text of an Event."""


async def write(api: KubernetesApi, owner: Owner, event: Event, *, now: float, instance: str) -> None:
    """Writes one Event about the ModelDeployment, reported by this instance of the operator."""
    await api.create(
        kubernetes_api.EVENTS,
        {
            "apiVersion": kubernetes_api.EVENTS.api_version,
            "kind": kubernetes_api.EVENTS.kind,
            "metadata": {"name": f"{owner.name}.{uuid.uuid4().hex[:16]}", "namespace": owner.namespace},
            "eventTime": times.text(now),
            "type": event.type,
            "reason": event.reason,
            "action": event.reason,
            "note": event.message[:NOTE_LIMIT],
            "regarding": {
                "apiVersion": schemas.API_VERSION,
                "kind": schemas.KIND,
                "name": owner.name,
                "namespace": owner.namespace,
                "uid": owner.uid,
            },
            "reportingController": CONTROLLER,
            "reportingInstance": instance,
        },
    )
