from typing import Any

import pytest
from tests.operator.clusters import KEY_NAME, NAMESPACE, Cluster, Killed, revision_of, serving, settle, spec

from kedge import kubernetes_api
from kedge.control.queue import Done
from kedge.decide import decisions

ONE, TWO = revision_of("1"), revision_of("2")


async def test_a_good_candidate_is_promoted_and_a_bad_one_rolled_back() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    await settle(cluster)
    assert (cluster.selected(), cluster.replicas(ONE), cluster.replicas(TWO)) == (TWO, 0, 2)
    bad = revision_of("3")
    cluster.declare(spec("3"))
    await settle(cluster, failing=bad)
    assert (cluster.selected(), cluster.replicas(TWO), cluster.replicas(bad)) == (TWO, 2, 0)
    assert cluster.condition("RolledBack") == "True"
    assert {"ObjectiveFailed", "RolledBack", "Promoted"} <= {event["reason"] for event in cluster.api.events}


async def test_a_rollback_is_remembered_before_traffic_moves_and_traffic_moves_before_pods_go() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    while not cluster.status.get("rejectedRevisions"):
        cluster.api.writes.clear()
        cluster.serve(30, failing=TWO)
        await cluster.turn()
    assert cluster.api.writes[:3] == [
        ("replace", "ModelDeployment", KEY_NAME),
        ("apply", "Service", KEY_NAME),
        ("apply", "Deployment", f"{KEY_NAME}-{TWO}"),
    ]


async def test_a_settled_cluster_is_left_alone() -> None:
    cluster = await serving()
    cluster.api.writes.clear()
    for _ in range(5):
        assert await cluster.turn() is Done.UNTIL_NEWS
    assert cluster.api.writes == []


@pytest.mark.parametrize(("version", "failing"), [("2", None), ("2", TWO)])
async def test_an_operator_killed_at_any_write_ends_in_the_same_state(version: str, failing: str | None) -> None:
    unhurt = await serving()
    unhurt.declare(spec(version))
    await settle(unhurt, failing=failing)
    kills = 0
    while True:
        cluster = await serving()
        cluster.declare(spec(version))
        cluster.api.fail_after = kills
        try:
            await settle(cluster, failing=failing)
        except Killed:
            cluster.api.fail_after = None
            cluster.start_operator()
            floor = min(len(cluster.pods_of(ONE)), 2)
            await settle(cluster, failing=failing)
            assert floor == 2 or cluster.status["stableRevision"] == TWO
        else:
            break
        assert final(cluster) == final(unhurt), f"killed at write {kills}"
        kills += 1
    assert kills > 8


def final(cluster: Cluster) -> dict[str, Any]:
    return {
        "selected": cluster.selected(),
        "replicas": {revision: cluster.replicas(revision) for revision in (ONE, TWO)},
        "stable": cluster.status["stableRevision"],
        "rejected": [(one["revision"], one["reason"]) for one in cluster.status["rejectedRevisions"]],
        "conditions": {one["type"]: (one["status"], one["reason"]) for one in cluster.status["conditions"]},
    }


async def test_a_change_by_hand_of_a_child_is_undone() -> None:
    cluster = await serving()
    service = cluster.api.objects[kubernetes_api.SERVICES, NAMESPACE, KEY_NAME]
    service["spec"]["selector"] = {"app": "something else"}
    cluster.api.put(kubernetes_api.SERVICES, service)
    await cluster.turn()
    assert cluster.selected() == ONE


async def test_a_service_of_somebody_else_is_neither_used_nor_overwritten() -> None:
    cluster = Cluster()
    foreign = {"metadata": {"name": KEY_NAME, "namespace": NAMESPACE}, "spec": {"selector": {"app": "theirs"}}}
    cluster.api.put(kubernetes_api.SERVICES, foreign)
    cluster.declare(spec("1"))
    assert await cluster.turn() == decisions.CONFLICT_INTERVAL_SECONDS
    assert cluster.api.objects[kubernetes_api.SERVICES, NAMESPACE, KEY_NAME]["spec"]["selector"] == {"app": "theirs"}
    assert next(one["reason"] for one in cluster.status["conditions"] if one["type"] == "Ready") == "NameConflict"
    assert not [item for item in cluster.api.objects if item[0] is kubernetes_api.DEPLOYMENTS]


async def test_a_spec_that_this_operator_cannot_understand_stops_nothing_that_serves() -> None:
    cluster = await serving()
    cluster.declare(spec("1") | {"replicas": "many"})
    cluster.api.writes.clear()
    await cluster.turn()
    assert cluster.api.writes == [("replace", "ModelDeployment", KEY_NAME)]
    assert cluster.status["message"].startswith("spec.replicas: ")
    assert cluster.condition("Stalled") == "True"
    assert cluster.condition("Available") == "True"
    cluster.declare(spec("1"))
    await settle(cluster)
    assert cluster.condition("Ready") == "True"


async def test_a_deleted_object_is_left_to_the_garbage_collector() -> None:
    cluster = await serving()
    resource = cluster.api.objects[kubernetes_api.MODEL_DEPLOYMENTS, NAMESPACE, KEY_NAME]
    resource["metadata"]["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    cluster.api.put(kubernetes_api.MODEL_DEPLOYMENTS, resource)
    cluster.api.writes.clear()
    assert await cluster.turn() is Done.FORGET
    assert cluster.api.writes == []


async def test_a_decision_on_what_is_out_of_date_changes_nothing() -> None:
    """A deposed leader, or one whose watch lags, writes status first and is refused there."""
    cluster = await serving()
    cluster.declare(spec("2"))
    await cluster.turn()
    lagging = cluster.api.objects[kubernetes_api.MODEL_DEPLOYMENTS, NAMESPACE, KEY_NAME]
    cluster.api.put(kubernetes_api.MODEL_DEPLOYMENTS, {**lagging, "metadata": dict(lagging["metadata"])})
    cluster.api.writes.clear()
    (key,) = cluster.cache.keys()
    cluster.now += 5
    answer = await cluster.reconciler.reconcile(key)
    assert answer == pytest.approx(0.2)
    assert cluster.api.writes == [("replace", "ModelDeployment", KEY_NAME)]


@pytest.mark.parametrize("page", ["<html>", "", 'kedge_server_requests_total{fault="server"} NaN'])
async def test_pods_with_a_broken_metrics_page_hold_the_step(page: str) -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    cluster.pages[TWO] = page
    for _ in range(20):
        cluster.serve(30)
        await cluster.turn()
    assert cluster.status["rollout"]["waitingFor"] == "MetricsUnavailable"
    assert cluster.selected() == "*"
    del cluster.pages[TWO]
    await settle(cluster)
    assert cluster.status["stableRevision"] == TWO


async def test_polls_keep_their_distance_whatever_else_wakes_the_key() -> None:
    cluster = await serving()
    cluster.declare(spec("2", metrics={"intervalSeconds": 5}))
    while not cluster.status.get("rollout", {}).get("servingSince"):
        await cluster.turn()
    await cluster.turn(seconds=1)
    (key,) = cluster.cache.keys()
    asked = cluster.asked
    assert await cluster.reconciler.reconcile(key) == pytest.approx(4.0)
    assert cluster.asked == asked
    cluster.now += 4
    await cluster.reconciler.reconcile(key)
    assert cluster.asked > asked


async def test_a_namespace_that_is_being_deleted_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise kubernetes_api.NamespaceTerminatingError("because it is being terminated")

    cluster = Cluster()
    cluster.declare(spec("1"))
    monkeypatch.setattr(cluster.api, "apply", refuse)

    assert await cluster.turn() is Done.UNTIL_NEWS
