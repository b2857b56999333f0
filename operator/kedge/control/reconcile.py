"""The reconcile loop: observe, decide, write status, act, record.

Level-triggered: whatever woke it, it looks at everything and goes on from what status remembers.
"""

import logging
import time
from collections.abc import Callable, Mapping

import httpx
import pydantic

from kedge import kubernetes_api
from kedge.act import children, events, status
from kedge.api import specs
from kedge.api.levers import Levers
from kedge.api.statuses import ModelDeploymentStatus
from kedge.control.cache import Cache, Key
from kedge.control.keeping import RecordKeeper
from kedge.control.metrics import Metrics
from kedge.control.queue import Done
from kedge.control.settings import Settings
from kedge.decide import conditions, decisions
from kedge.decide.situations import Event
from kedge.desired import names, revisions, routing
from kedge.desired.names import Owner
from kedge.desired.revisions import Revision
from kedge.kubernetes_api import KubernetesApi, ObjectDict, Resource
from kedge.observe import cluster, scrape
from kedge.observe.snapshot import PodView, Snapshot

logger = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.2
"""Until a pass that met a newer object is made again: the watch brings that object meanwhile."""


class Reconciler:
    """Brings ModelDeployments to what their specs and measurements say, one pass a call."""

    def __init__(
        self,
        api: KubernetesApi,
        cache: Cache,
        http: httpx.AsyncClient,
        settings: Settings,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._cache = cache
        self._http = http
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._records = RecordKeeper(api, metrics, now=now)
        self._next_poll: dict[Key, float] = {}

    async def reconcile(self, key: Key) -> float | Done:
        """Makes one pass; returns seconds until the next one is due without news."""
        resource = self._cache.model_deployment(key)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            self._next_poll.pop(key, None)
            self._records.forget(key)
            return Done.FORGET
        with self._metrics.reconcile_seconds.time():
            try:
                return await self._pass(key, resource)
            except kubernetes_api.ConflictError as conflict:
                logger.debug("%s: decided on what is out of date: %s", key, conflict)
                return CONFLICT_SECONDS
            except kubernetes_api.NamespaceTerminatingError:
                return Done.UNTIL_NEWS

    async def _pass(self, key: Key, resource: ObjectDict) -> float | Done:
        metadata = resource["metadata"]
        owner = Owner(metadata["name"], metadata["namespace"], metadata["uid"])
        before = ModelDeploymentStatus.model_validate(resource.get("status") or {})
        try:
            spec = specs.ModelDeploymentSpec.model_validate(resource["spec"])
        except pydantic.ValidationError as error:
            return await self._refuse(resource, before, error)
        if (wait := self._until_poll(key, before, metadata["generation"])) > 0:
            return wait

        known = self._revisions(key, owner)
        declared = self._declared(spec, known)
        snapshot = await self._observe(key, owner, spec, before, known=known, declared=declared.hash)
        writer = children.Children(self._api, owner, self._finder(key, owner), self._cache.put)
        if declared.hash not in snapshot.revisions and not snapshot.conflicts:
            await writer.remember(declared)
        given = decisions.Input(
            spec=spec,
            generation=metadata["generation"],
            declared=declared.hash,
            selector=names.selector(owner),
            levers=Levers.read(metadata),
            status=before,
            snapshot=snapshot,
            now=self._now(),
        )
        decision = decisions.decide(given)
        written = await status.write(self._api, resource, decision.status)
        if written is not None:
            self._cache.put(kubernetes_api.MODEL_DEPLOYMENTS, written)
        self._records.note(key, given, decision)
        if not snapshot.conflicts:
            await writer.carry_out(decision.plan, {**snapshot.revisions, declared.hash: declared})
        await self._tell(owner, decision.events)
        retry_seconds = await self._records.keep(key, owner)
        return self._next_pass(key, decision, retry_seconds)

    def _until_poll(self, key: Key, before: ModelDeploymentStatus, generation: int) -> float:
        """Returns the seconds until the next poll is due, 0 when this pass need not wait for it.

        While users are judged on, a pass is a poll, and polls keep their distance: the news of the cluster
        that come between are seen at the next one.
        """
        if before.rollout is None or before.rollout.serving_since is None or before.observed_generation != generation:
            return 0.0
        return max(0.0, self._next_poll.get(key, 0.0) - self._now())

    def _next_pass(self, key: Key, decision: decisions.Decision, retry_seconds: float | None) -> float | Done:
        """Returns when the next pass is due: for the next decision, or for a record that could not be written."""
        if decision.look_again_seconds is None:
            self._next_poll.pop(key, None)
            return Done.UNTIL_NEWS if retry_seconds is None else retry_seconds
        self._next_poll[key] = self._now() + decision.look_again_seconds
        return decision.look_again_seconds

    def _declared(self, spec: specs.ModelDeploymentSpec, known: Mapping[str, Revision]) -> Revision:
        """Returns the declared revision as it is remembered, or as it is to be if it is new."""
        found = known.get(revisions.revision_hash(spec))
        if found is not None:
            return found
        sequence = 1 + max((revision.sequence for revision in known.values()), default=0)
        return revisions.declare(spec, default_image=self._settings.model_server_image, sequence=sequence)

    async def _observe(
        self,
        key: Key,
        owner: Owner,
        spec: specs.ModelDeploymentSpec,
        before: ModelDeploymentStatus,
        *,
        known: Mapping[str, Revision],
        declared: str,
    ) -> Snapshot:
        pods = tuple(cluster.pod_view(pod) for pod in self._cache.children(kubernetes_api.PODS, key))
        find = self._finder(key, owner)
        service = find(kubernetes_api.SERVICES, owner.name)
        snapshot = Snapshot(
            pods=pods,
            workloads={
                item["metadata"]["labels"][names.REVISION_LABEL]: cluster.workload_view(item)
                for item in self._cache.children(kubernetes_api.DEPLOYMENTS, key)
                if children.is_owned(item, owner.uid)
            },
            selected=None if service is None else routing.selected_revision(service),
            revisions=known,
            conflicts=await children.names_taken(self._api, owner, find, declared=declared),
        )
        return await self._measured(snapshot, spec, before) if decisions.measured_pods_matter(before) else snapshot

    async def _measured(
        self, snapshot: Snapshot, spec: specs.ModelDeploymentSpec, before: ModelDeploymentStatus
    ) -> Snapshot:
        judged = {before.stable_revision, before.candidate_revision}
        asked = [pod for pod in snapshot.pods if pod.revision in judged and _can_be_read(pod)]
        due = decisions.distributions_are_due(spec, before, self._now())
        read = await scrape.scrape(self._http, asked, scrape.Wanted(decisions.indicators(spec), distributions=due))
        self._metrics.unmeasured_pods.inc(len(read.unmeasured))
        return snapshot.measured(read.samples, read.unmeasured, read.distributions)

    async def _tell(self, owner: Owner, told: tuple[Event, ...]) -> None:
        for event in told:
            self._metrics.transitions.labels(reason=event.reason.value).inc()
            logger.info("%s/%s: %s: %s", owner.namespace, owner.name, event.reason, event.message)
            try:
                await events.write(self._api, owner, event, now=self._now(), instance=self._settings.identity)
            except kubernetes_api.ApiError as error:
                logger.warning("cannot write an Event: %s", error)

    async def _refuse(
        self, resource: ObjectDict, before: ModelDeploymentStatus, error: pydantic.ValidationError
    ) -> Done:
        first = error.errors()[0]
        message = f"spec.{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        generation = resource["metadata"]["generation"]
        told = conditions.invalid(before, message, generation=generation, now=self._now())
        refused = before.model_copy(update={"observed_generation": generation, "message": message, "conditions": told})
        await status.write(self._api, resource, refused)
        return Done.UNTIL_NEWS

    def _revisions(self, key: Key, owner: Owner) -> dict[str, Revision]:
        remembered = (
            revisions.remembered(item)
            for item in self._cache.children(kubernetes_api.CONTROLLER_REVISIONS, key)
            if children.is_owned(item, owner.uid)
        )
        return {revision.hash: revision for revision in remembered}

    def _finder(self, key: Key, owner: Owner) -> children.Find:
        def find(resource: Resource, name: str) -> ObjectDict | None:
            for item in self._cache.children(resource, key):
                if item["metadata"]["name"] == name and children.is_owned(item, owner.uid):
                    return item
            return None

        return find


def _can_be_read(pod: PodView) -> bool:
    return pod.ready and not pod.terminating and pod.address is not None
