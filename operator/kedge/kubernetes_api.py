"""The few calls to the Kubernetes API that Kedge makes, each bounded in time.

The official client carries credentials, TLS and the connection pool; objects stay plain JSON.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import yaml
from kubernetes import aio
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from kedge.api import records, schemas
from kedge.desired import names

TIMEOUT_SECONDS = 15.0
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
"""What a list is asked for where only the objects' metadata is wanted."""

ObjectDict = dict[str, Any]


class ApiError(Exception):
    """The API server refused a call or could not be reached; the same call may succeed later."""


class ConflictError(ApiError):
    """The object has changed since it was read, or exists already: read again and decide anew."""


class NotFoundError(ApiError):
    """There is no such object."""


class NamespaceTerminatingError(ApiError):
    """The namespace is being deleted and takes no new objects: there is nothing left to do in it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object and where the API server has it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Returns the URL path of a collection, an object or its subresource."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        where = f"/namespaces/{namespace}" if namespace else ""
        parts = [root + where, self.plural, *(part for part in (name, subresource) if part)]
        return "/".join(parts)


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one moment."""

    items: tuple[ObjectDict, ...]
    resource_version: int
    """The version of the collection: what is newer is not in the list."""


MODEL_DEPLOYMENTS = Resource(schemas.API_VERSION, schemas.KIND, schemas.PLURAL)
CONTROLLER_REVISIONS = Resource("apps/v1", "ControllerRevision", "controllerrevisions")
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
DISRUPTION_BUDGETS = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
EVENTS = Resource("events.k8s.io/v1", "Event", "events")
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases")
ROLLOUT_RECORDS = Resource(schemas.API_VERSION, records.KIND, records.PLURAL)
PODS = Resource("v1", "Pod", "pods")
SERVICES = Resource("v1", "Service", "services")


class KubernetesApi:
    """The API server, seen through the calls that Kedge makes."""

    def __init__(self, client: kubernetes_client.ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> "KubernetesApi":
        """Returns a connection with the pod's service account, or with the kubeconfig outside a cluster."""
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes_config.load_incluster_config()
        else:
            await kubernetes_config.load_kube_config()
        return cls(aio.client.ApiClient())

    @classmethod
    async def connect_as_user(cls, context: str | None) -> tuple["KubernetesApi", str]:
        """Returns a connection by the kubeconfig, in this context or the current one, and the context's namespace.

        Raises:
            ApiError: There is no kubeconfig that says where the API server is.
        """
        try:
            loader = await kubernetes_config.load_kube_config(context=context)
            chosen: Mapping[str, Any] = loader.current_context
        except (kubernetes_config.ConfigException, OSError, yaml.YAMLError, TypeError) as error:
            # The client takes an empty file for a mapping.
            raise ApiError(f"the kubeconfig cannot be used: {error}") from error
        return cls(aio.client.ApiClient()), chosen["context"].get("namespace") or "default"

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> ObjectDict:
        """Returns an object as the API server has it now."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        """Returns all objects of a kind, of one namespace or of all, page by page."""
        accept = METADATA_ONLY if metadata_only else "application/json"
        items: list[ObjectDict] = []
        query = {"limit": "500"} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._call("GET", resource.path(namespace), query=query, accept=accept)
            items += page.get("items") or []
            token = page["metadata"].get("continue")
            if not token:
                return Listing(tuple(items), int(page["metadata"]["resourceVersion"]))
            query["continue"] = token

    async def apply(self, resource: Resource, manifest: Mapping[str, Any]) -> ObjectDict:
        """Applies a manifest server-side; fields of other managers stay theirs unless it names them."""
        metadata = manifest["metadata"]
        return await self._call(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": names.FIELD_MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> ObjectDict:
        """Creates an object.

        Raises:
            ConflictError: An object of that name exists.
        """
        namespace = manifest["metadata"]["namespace"]
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call("POST", resource.path(namespace), query=query, body=manifest)

    async def replace(
        self, resource: Resource, manifest: Mapping[str, Any], *, subresource: str | None = None
    ) -> ObjectDict:
        """Replaces an object, or one of its subresources, if it still has the manifest's resourceVersion.

        Raises:
            ConflictError: It has changed since.
        """
        metadata = manifest["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"], subresource)
        return await self._call("PUT", path, query={"fieldManager": names.FIELD_MANAGER}, body=manifest)

    async def annotate(
        self, resource: Resource, namespace: str, name: str, annotations: Mapping[str, str | None], *, manager: str
    ) -> ObjectDict:
        """Sets annotations of an object as this field manager; None removes one."""
        return await self._call(
            "PATCH",
            resource.path(namespace, name),
            query={"fieldManager": manager},
            body={"metadata": {"annotations": dict(annotations)}},
            content_type="application/merge-patch+json",
        )

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Deletes an object if it is still the one with this UID; one that is gone already is fine."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._call("DELETE", resource.path(namespace, name), body=body)
        except (NotFoundError, ConflictError):
            return

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> ObjectDict:
        method, url, headers, sent, _ = await self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._client.call_api(
                method, url, header_params=headers, body=sent, _request_timeout=TIMEOUT_SECONDS
            )
            content = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        if response.status >= 400:
            raise _error(method, path, response.status, content)
        answer: ObjectDict = json.loads(content)
        return answer


def _error(method: str, path: str, status: int, content: bytes) -> ApiError:
    try:
        answer = json.loads(content)
        words, causes = answer["message"], (answer.get("details") or {}).get("causes") or []
    except (ValueError, KeyError, TypeError, AttributeError):
        words, causes = content.decode(errors="replace"), []
    kind = {404: NotFoundError, 409: ConflictError}.get(status, ApiError)
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        kind = NamespaceTerminatingError
    return kind(f"{method} {path}: {status} {words[:500]}")
