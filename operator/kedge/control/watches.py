"""Kopf's watches: every event feeds the cache and wakes a key, nothing else.

The handlers are `on.event` handlers only, so that Kopf keeps no annotations, finalizers or progress of its
own on anybody's objects.
"""

from collections.abc import Callable
from typing import Any

import kopf

from kedge import kubernetes_api
from kedge.control.cache import Cache, Key, key_of
from kedge.desired import names
from kedge.kubernetes_api import MODEL_DEPLOYMENTS, Resource

CHILDREN = (
    kubernetes_api.CONTROLLER_REVISIONS,
    kubernetes_api.DEPLOYMENTS,
    kubernetes_api.DISRUPTION_BUDGETS,
    kubernetes_api.PODS,
    kubernetes_api.SERVICES,
)


def registry(cache: Cache, wake: Callable[[Key], None]) -> kopf.OperatorRegistry:
    """Returns Kopf's handlers: all that they do is to update the cache and wake the key."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    for resource in (MODEL_DEPLOYMENTS, *CHILDREN):
        _watch(handlers, resource, cache, wake)
    return handlers


def settings() -> kopf.OperatorSettings:
    """Returns Kopf's settings."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.networking.request_timeout = 20.0
    chosen.networking.connect_timeout = 10.0
    chosen.watching.connect_timeout = 10.0
    chosen.watching.server_timeout = 300
    for resource in CHILDREN:
        group, _, version = resource.api_version.rpartition("/")
        chosen.watching.label_selectors[group, version, resource.plural] = names.MODEL_DEPLOYMENT_LABEL
    return chosen


def _watch(handlers: kopf.OperatorRegistry, resource: Resource, cache: Cache, wake: Callable[[Key], None]) -> None:
    group, _, version = resource.api_version.rpartition("/")

    @kopf.on.event(group, version, resource.plural, registry=handlers, id=f"see {resource.plural}")
    async def see(event: kopf.RawEvent, **_: Any) -> None:
        item: Any = event["object"]
        if event["type"] == "DELETED":
            cache.drop(resource, item)
        else:
            cache.put(resource, item)
        key = key_of(resource, item)
        if key is not None:
            wake(key)
