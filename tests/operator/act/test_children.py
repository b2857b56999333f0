from typing import Any

from tests.operator import worlds
from tests.operator.clusters import FakeApi

from kedge import kubernetes_api
from kedge.act.children import Children, names_taken
from kedge.decide.decisions import Plan
from kedge.desired import revisions, routing
from kedge.desired.names import Owner
from kedge.desired.revisions import Revision
from kedge.kubernetes_api import ObjectDict, Resource
from kedge.observe.snapshot import WorkloadView

OWNER = Owner("churn", "prod", "uid-1")
OLD, NEW = (
    revisions.declare(worlds.spec(version), default_image="server:1", sequence=sequence)
    for sequence, version in enumerate(("1", "2"), start=1)
)
KNOWN = {revision.hash: revision for revision in (OLD, NEW)}


class Stage:
    def __init__(self) -> None:
        self.api = FakeApi()
        api: Any = self.api
        self.children = Children(api, OWNER, self.find, lambda _resource, _item: None)

    def find(self, resource: Resource, name: str) -> ObjectDict | None:
        return self.api.objects.get((resource, OWNER.namespace, name))

    async def carry_out(
        self, workloads: dict[Revision, int], selected: str, *, forgotten: tuple[str, ...] = ()
    ) -> None:
        self.api.writes.clear()
        views = {revision.hash: WorkloadView(replicas) for revision, replicas in workloads.items()}
        await self.children.carry_out(Plan(views, selected, forgotten), KNOWN)


async def test_traffic_moves_first_and_pods_are_added_before_others_go() -> None:
    stage = Stage()
    await stage.carry_out({OLD: 3}, OLD.hash)
    await stage.carry_out({OLD: 0, NEW: 3}, NEW.hash)
    assert stage.api.writes == [
        ("apply", "Service", "churn"),
        ("apply", "Deployment", f"churn-{NEW.hash}"),
        ("apply", "Deployment", f"churn-{OLD.hash}"),
    ]


async def test_what_is_as_planned_is_not_written_again() -> None:
    stage = Stage()
    await stage.carry_out({OLD: 3}, routing.ALL_REVISIONS)
    await stage.carry_out({OLD: 3}, routing.ALL_REVISIONS)
    assert stage.api.writes == []


async def test_a_forgotten_revision_leaves_nothing() -> None:
    stage = Stage()
    await stage.children.remember(OLD)
    await stage.carry_out({OLD: 0, NEW: 3}, NEW.hash)
    await stage.carry_out({NEW: 3}, NEW.hash, forgotten=(OLD.hash,))
    assert stage.find(kubernetes_api.DEPLOYMENTS, f"churn-{OLD.hash}") is None
    assert stage.find(kubernetes_api.CONTROLLER_REVISIONS, f"churn-{OLD.hash}") is None


async def test_only_what_belongs_to_somebody_else_is_a_taken_name() -> None:
    api: Any = FakeApi()

    def nothing_seen_yet(_resource: Resource, _name: str) -> None:
        return None

    assert await names_taken(api, OWNER, nothing_seen_yet, declared=NEW.hash) == ()
    ours = {"metadata": {"name": "churn", "namespace": "prod", "ownerReferences": [OWNER.reference()]}}
    api.put(kubernetes_api.SERVICES, ours)
    assert await names_taken(api, OWNER, nothing_seen_yet, declared=NEW.hash) == ()
    api.put(kubernetes_api.DISRUPTION_BUDGETS, {"metadata": {"name": "churn", "namespace": "prod"}})
    assert await names_taken(api, OWNER, nothing_seen_yet, declared=NEW.hash) == ("PodDisruptionBudget churn",)
    workload = f"churn-{NEW.hash}"
    api.put(kubernetes_api.DEPLOYMENTS, {"metadata": {"name": workload, "namespace": "prod"}})
    taken = await names_taken(api, OWNER, nothing_seen_yet, declared=NEW.hash)
    assert taken == ("PodDisruptionBudget churn", f"Deployment {workload}")
