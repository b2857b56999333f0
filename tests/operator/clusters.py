"""An API server, a kubelet and model servers in memory, for tests of the control loop.

The API server keeps resourceVersions and refuses what is out of date; the transport of the pods' metrics is
httpx's own seam. `fail_after` ends the operator's life after so many writes, as a kill would.
"""

import copy
from collections.abc import Mapping
from typing import Any

import httpx

from kedge import kubernetes_api
from kedge.api import specs
from kedge.control.cache import Cache
from kedge.control.metrics import Metrics
from kedge.control.queue import Done
from kedge.control.reconcile import Reconciler
from kedge.control.settings import Settings
from kedge.desired import names, revisions, routing
from kedge.kubernetes_api import ROLLOUT_RECORDS, ApiError, ConflictError, Listing, NotFoundError, Resource

KEY_NAME = "churn"
NAMESPACE = "prod"


class Killed(BaseException):
    """The operator's process ends here; nothing may catch it."""


class FakeApi:
    """The calls of `KubernetesApi`, on objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, str, str], dict[str, Any]] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.events: list[dict[str, Any]] = []
        self.fail_after: int | None = None
        self.refused: set[Resource] = set()
        """Kinds that cannot be written for now."""
        self._version = 100

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        try:
            return copy.deepcopy(self.objects[resource, namespace, name])
        except KeyError:
            raise NotFoundError(f'404 {resource.plural} "{name}" not found') from None

    async def list(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        found = [
            {"metadata": item["metadata"]} if metadata_only else item
            for (kind, _, _), item in self.objects.items()
            if kind is resource and fits(item["metadata"].get("labels", {}), labels)
        ]
        return Listing(tuple(copy.deepcopy(found)), self._version)

    async def apply(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self._about_to_write("apply", resource, manifest)
        metadata = manifest["metadata"]
        known = self.objects.get((resource, metadata["namespace"], metadata["name"]))
        merged = copy.deepcopy(dict(manifest))
        if known is not None:
            kept = {key: known["metadata"][key] for key in ("uid", "creationTimestamp")}
            merged["metadata"] = {**merged["metadata"], **kept}
            merged["status"] = known.get("status", {})
        return self.put(resource, merged)

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self._about_to_write("create", resource, manifest)
        if resource in self.refused:
            raise ApiError(f"500 no {resource.kind} today")
        if resource is kubernetes_api.EVENTS:
            self.events.append(dict(manifest))
            return dict(manifest)
        if (resource, manifest["metadata"]["namespace"], manifest["metadata"]["name"]) in self.objects:
            raise ConflictError("exists")
        return self.put(resource, copy.deepcopy(dict(manifest)))

    async def replace(
        self, resource: Resource, manifest: Mapping[str, Any], *, subresource: str | None = None
    ) -> dict[str, Any]:
        self._about_to_write("replace", resource, manifest)
        if resource in self.refused:
            raise ApiError(f"500 no {resource.kind} today")
        metadata = manifest["metadata"]
        known = self.objects.get((resource, metadata["namespace"], metadata["name"]))
        if known is None:
            raise NotFoundError(f"{resource.kind} {metadata['name']}")
        if known["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ConflictError("changed")
        if resource is ROLLOUT_RECORDS and "outcome" in known["record"]:
            raise ApiError("422 has an outcome")
        replaced = copy.deepcopy(dict(manifest))
        if subresource == "status":
            replaced = {**copy.deepcopy(known), "status": replaced["status"]}
        return self.put(resource, replaced)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        self.writes.append(("delete", resource.kind, name))
        self.objects.pop((resource, namespace, name), None)

    async def annotate(
        self, resource: Resource, namespace: str, name: str, annotations: Mapping[str, str | None], *, manager: str
    ) -> dict[str, Any]:
        item = await self.get(resource, namespace, name)
        merged = {**item["metadata"].get("annotations", {}), **annotations}
        item["metadata"]["annotations"] = {key: value for key, value in merged.items() if value is not None}
        item["metadata"]["managedFields"] = [
            {
                "manager": manager,
                "fieldsV1": {"f:metadata": {"f:annotations": {f"f:{key}": {} for key in annotations}}},
            }
        ]
        return self.put(resource, item)

    async def close(self) -> None:
        """Nothing is open."""

    def put(self, resource: Resource, item: dict[str, Any]) -> dict[str, Any]:
        """Stores an object as the API server would, without counting a write of the operator."""
        self._version += 1
        metadata = item["metadata"]
        metadata.setdefault("uid", f"uid-{self._version}")
        metadata.setdefault("creationTimestamp", "2026-11-24T10:00:00Z")
        metadata["resourceVersion"] = str(self._version)
        self.objects[resource, metadata["namespace"], metadata["name"]] = item
        return copy.deepcopy(item)

    def _about_to_write(self, verb: str, resource: Resource, manifest: Mapping[str, Any]) -> None:
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise Killed
            self.fail_after -= 1
        self.writes.append((verb, resource.kind, manifest["metadata"]["name"]))


def fits(labels: Mapping[str, str], selector: str) -> bool:
    """Tells whether labels fit a selector of the forms `key=value`, `key` and `!key`."""
    terms = [term.partition("=") for term in selector.split(",") if term]
    return all(
        (key[1:] not in labels) if key.startswith("!") else (labels.get(key) == value if equals else key in labels)
        for key, equals, value in terms
    )


class Cluster:
    """One ModelDeployment's cluster, driven turn by turn."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.now = 1_800_000_000.0
        self.answers: dict[str, dict[str, int]] = {}
        """Requests by fault, by pod address."""
        self.pages: dict[str, str] = {}
        """A metrics page to answer with, whatever was counted, by revision."""
        self.asked = 0
        """Metrics pages that the operator asked for."""
        self._addresses = 0
        self.start_operator()

    def start_operator(self) -> None:
        """Starts an operator that knows nothing but what the API server tells."""
        self.cache = Cache()
        self.metrics = Metrics()
        settings = Settings(model_server_image="server:1", identity="kedge-0")
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        api: Any = self.api
        self.reconciler = Reconciler(api, self.cache, http, settings, self.metrics, now=lambda: self.now)

    def declare(self, spec: dict[str, Any]) -> None:
        known = self.api.objects.get((kubernetes_api.MODEL_DEPLOYMENTS, NAMESPACE, KEY_NAME))
        metadata: dict[str, Any] = (
            dict(known["metadata"]) if known else {"name": KEY_NAME, "namespace": NAMESPACE, "generation": 0}
        )
        metadata["generation"] += 1
        status = {"status": known["status"]} if known and "status" in known else {}
        self.api.put(kubernetes_api.MODEL_DEPLOYMENTS, {"metadata": metadata, "spec": spec, **status})

    async def turn(self, seconds: float = 1.0) -> float | Done:
        """Lets the watch bring all news, the operator make one pass, and the kubelet follow."""
        for resource in {resource for resource, _, _ in self.api.objects}:
            listing = await self.api.list(resource, None)
            self.cache.replace_all(resource, listing.items, namespace=None, older_than=listing.resource_version)
        (key,) = self.cache.keys()
        answer = await self.reconciler.reconcile(key)
        self.run_pods()
        self.now += seconds
        return answer

    def run_pods(self) -> None:
        """Starts and ends pods as the Deployments say; a pod is ready at once."""
        deployments = [item for (kind, _, _), item in self.api.objects.items() if kind is kubernetes_api.DEPLOYMENTS]
        for deployment in deployments:
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            revision = labels[names.REVISION_LABEL]
            pods = self.pods_of(revision)
            for pod in pods[deployment["spec"]["replicas"] :]:
                del self.api.objects[kubernetes_api.PODS, NAMESPACE, pod["metadata"]["name"]]
            for _ in range(deployment["spec"]["replicas"] - len(pods)):
                self._addresses += 1
                address = f"10.0.0.{self._addresses}"
                self.answers[address] = {"none": 0, "server": 0}
                self.api.put(
                    kubernetes_api.PODS,
                    {
                        "metadata": {"name": f"pod-{self._addresses}", "namespace": NAMESPACE, "labels": labels},
                        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
                    },
                )

    def pods_of(self, revision: str) -> list[dict[str, Any]]:
        return [
            item
            for (kind, _, _), item in self.api.objects.items()
            if kind is kubernetes_api.PODS and item["metadata"]["labels"][names.REVISION_LABEL] == revision
        ]

    def serve(self, requests: int, *, failing: str | None = None) -> None:
        """Sends requests to every pod behind the Service; those to the revision `failing` end in a server fault."""
        selected = self.selected()
        for (kind, _, _), pod in self.api.objects.items():
            if kind is not kubernetes_api.PODS:
                continue
            revision = pod["metadata"]["labels"][names.REVISION_LABEL]
            if selected in {revision, routing.ALL_REVISIONS}:
                fault = "server" if revision == failing else "none"
                self.answers[pod["status"]["podIP"]][fault] += requests

    def selected(self) -> str | None:
        service = self.api.objects.get((kubernetes_api.SERVICES, NAMESPACE, KEY_NAME))
        return routing.selected_revision(service) if service else None

    def records(self) -> dict[str, dict[str, Any]]:
        """Returns the records of rollouts by their names, oldest first."""
        return {name: item["record"] for (kind, _, name), item in self.api.objects.items() if kind is ROLLOUT_RECORDS}

    def replicas(self, revision: str) -> int:
        name = f"{KEY_NAME}-{revision}"
        deployment = self.api.objects.get((kubernetes_api.DEPLOYMENTS, NAMESPACE, name))
        found: int = deployment["spec"]["replicas"] if deployment else 0
        return found

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects[kubernetes_api.MODEL_DEPLOYMENTS, NAMESPACE, KEY_NAME].get(
            "status", {}
        )
        return found

    def condition(self, kind: str) -> str | None:
        return next((one["status"] for one in self.status.get("conditions", ()) if one["type"] == kind), None)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        for (kind, _, _), pod in self.api.objects.items():
            if kind is kubernetes_api.PODS and pod["status"]["podIP"] == request.url.host:
                page = self.pages.get(pod["metadata"]["labels"][names.REVISION_LABEL])
                if page is not None:
                    return httpx.Response(200, text=page)
        counted = self.answers[request.url.host]
        lines = [f'kedge_server_requests_total{{fault="{fault}"}} {count}' for fault, count in counted.items()]
        return httpx.Response(200, text="\n".join([*lines, "process_start_time_seconds 1"]))


def spec(version: str, **changes: Any) -> dict[str, Any]:
    rollout = {
        "steps": [{"weightPercent": 50, "minimumSeconds": 2}],
        "minimumRequests": 50,
        "guard": {"durationSeconds": 20},
    } | changes.pop("rollout", {})
    return {
        "replicas": 2,
        "model": {"uri": f"https://models/{version}.skops", "sha256": "a" * 64},
        "metrics": {"intervalSeconds": 1},
        "rollout": rollout,
        **changes,
    }


def revision_of(version: str) -> str:
    return revisions.revision_hash(specs.ModelDeploymentSpec.model_validate(spec(version)))


async def serving() -> Cluster:
    cluster = Cluster()
    cluster.declare(spec("1"))
    await settle(cluster)
    assert cluster.condition("Ready") == "True"
    assert cluster.status["selector"] == f"kedge.dev/model-deployment={KEY_NAME}"
    return cluster


async def settle(cluster: Cluster, *, failing: str | None = None) -> None:
    for _ in range(90):
        cluster.serve(30, failing=failing)
        if await cluster.turn() is Done.UNTIL_NEWS and await cluster.turn() is Done.UNTIL_NEWS:
            return
    raise AssertionError(f"not settled: {cluster.status.get('message')}")
