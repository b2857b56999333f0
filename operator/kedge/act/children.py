"""Writes the objects that a ModelDeployment owns, in the order that keeps users served."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from kedge import kubernetes_api
from kedge.act import manifests
from kedge.decide.decisions import Plan
from kedge.desired import names, revisions, routing, workloads
from kedge.desired.names import Owner
from kedge.desired.revisions import Revision
from kedge.kubernetes_api import KubernetesApi, ObjectDict, Resource

Find = Callable[[Resource, str], ObjectDict | None]
"""Returns the owner's child of this kind and name as last seen, or None."""
Written = Callable[[Resource, ObjectDict], None]
"""Is told every object as the API server has it after a write."""


@dataclasses.dataclass(frozen=True, slots=True)
class Children:
    """The children of one ModelDeployment, to be brought to a plan."""

    api: KubernetesApi
    owner: Owner
    find: Find
    written: Written

    async def remember(self, revision: Revision) -> None:
        """Creates the ControllerRevision of a revision that was declared for the first time."""
        await self._ensure(kubernetes_api.CONTROLLER_REVISIONS, revisions.controller_revision(self.owner, revision))

    async def carry_out(self, plan: Plan, known: Mapping[str, Revision]) -> None:
        """Brings the children to the plan.

        Traffic moves by one write before any pod is taken away, and pods are added before others go: a
        crash between two writes leaves users served, and the next pass goes on from there.
        """
        await self._ensure(kubernetes_api.SERVICES, routing.service(self.owner, plan.selected))
        await self._ensure(kubernetes_api.DISRUPTION_BUDGETS, workloads.disruption_budget(self.owner))
        for revision, workload in sorted(plan.workloads.items(), key=lambda item: item[1].replicas == 0):
            if revision in known:
                manifest = workloads.deployment(
                    self.owner,
                    known[revision],
                    workload.replicas,
                    latency_edges_milliseconds=workload.latency_edges_milliseconds,
                )
                await self._ensure(kubernetes_api.DEPLOYMENTS, manifest)
        for revision in plan.forgotten:
            await self._remove(revision)

    async def _ensure(self, resource: Resource, manifest: Mapping[str, Any]) -> None:
        existing = self.find(resource, manifest["metadata"]["name"])
        if existing is not None and manifests.fulfils(existing, manifest):
            return
        self.written(resource, await self.api.apply(resource, manifest))

    async def _remove(self, revision: str) -> None:
        name = names.workload_name(self.owner, revision)
        for resource in (kubernetes_api.DEPLOYMENTS, kubernetes_api.CONTROLLER_REVISIONS):
            existing = self.find(resource, name)
            if existing is not None:
                await self.api.delete(resource, self.owner.namespace, name, uid=existing["metadata"]["uid"])


async def names_taken(api: KubernetesApi, owner: Owner, find: Find, *, declared: str) -> tuple[str, ...]:
    """Returns the objects of somebody else that bear a name which Kedge needs, as `Kind name`."""
    workload = names.workload_name(owner, declared)
    needed = (
        (kubernetes_api.SERVICES, owner.name),
        (kubernetes_api.DISRUPTION_BUDGETS, owner.name),
        (kubernetes_api.CONTROLLER_REVISIONS, workload),
        (kubernetes_api.DEPLOYMENTS, workload),
    )
    taken = []
    for resource, name in needed:
        if find(resource, name) is not None:
            continue
        try:
            found = await api.get(resource, owner.namespace, name)
        except kubernetes_api.NotFoundError:
            continue
        if not is_owned(found, owner.uid):
            taken.append(f"{resource.kind} {name}")
    return tuple(taken)


def is_owned(child: Mapping[str, Any], uid: str) -> bool:
    """Tells whether the ModelDeployment with this UID is the controller of the object."""
    references = child["metadata"].get("ownerReferences") or []
    return any(reference.get("uid") == uid and reference.get("controller") for reference in references)
