from typing import Any

import pytest
from tests.operator.clusters import KEY_NAME, NAMESPACE, Cluster, Killed, revision_of, serving, settle, spec

from kedge.act import records
from kedge.api.records import Record
from kedge.control import keeping
from kedge.control.queue import Done
from kedge.decide import journals, replaying
from kedge.kubernetes_api import MODEL_DEPLOYMENTS, ROLLOUT_RECORDS, NamespaceTerminatingError

ONE, TWO, THREE = revision_of("1"), revision_of("2"), revision_of("3")


def outcomes(cluster: Cluster) -> list[tuple[str, str | None]]:
    return [(one["candidate"], one.get("outcome")) for one in cluster.records().values()]


def replayed(record: dict[str, Any]) -> replaying.Replay:
    return replaying.replay(Record.model_validate(record))


async def test_every_rollout_leaves_a_record_that_belongs_to_its_model() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    await settle(cluster)
    cluster.declare(spec("3"))
    await settle(cluster, failing=THREE)

    assert outcomes(cluster) == [(ONE, "Promoted"), (TWO, "Promoted"), (THREE, "RolledBack")]
    owner = cluster.api.objects[MODEL_DEPLOYMENTS, NAMESPACE, KEY_NAME]["metadata"]
    for name, record in cluster.records().items():
        metadata = cluster.api.objects[ROLLOUT_RECORDS, NAMESPACE, name]["metadata"]
        assert name.startswith(f"{KEY_NAME}-{record['candidate']}-2027")
        assert metadata["ownerReferences"][0]["uid"] == owner["uid"]
        assert metadata["labels"]["kedge.dev/model-deployment"] == KEY_NAME
        assert metadata["labels"]["kedge.dev/outcome"] == record["outcome"]
        assert replayed(record).differences == ()
        assert replayed(record).is_whole


async def test_a_guard_that_fails_leaves_a_record_beside_the_promotions() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    while cluster.status.get("stableRevision") != TWO:
        cluster.serve(30)
        await cluster.turn()
    await settle(cluster, failing=TWO)

    *_, guard = cluster.records().values()
    assert outcomes(cluster)[1:] == [(TWO, "Promoted"), (TWO, "RolledBack")]
    assert (guard["period"], guard["stable"]) == ("Guard", ONE)
    assert (replayed(guard).differences, replayed(guard).is_whole) == ((), True)


async def test_a_record_is_written_when_something_moves_and_not_at_every_poll() -> None:
    cluster = await serving()
    cluster.declare(spec("2", rollout={"steps": [{"weightPercent": 50, "minimumSeconds": 30}]}))
    while not cluster.status.get("rollout", {}).get("servingSince"):
        await cluster.turn()
    cluster.api.writes.clear()
    for _ in range(20):
        cluster.serve(30)
        await cluster.turn()

    written = [kind for _, kind, _ in cluster.api.writes]
    assert written.count("ModelDeployment") == 20
    assert "RolloutRecord" not in written


async def test_a_record_is_written_after_traffic_has_moved() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    while not cluster.status.get("rejectedRevisions"):
        cluster.api.writes.clear()
        cluster.serve(30, failing=TWO)
        await cluster.turn()
    kinds = [kind for _, kind, _ in cluster.api.writes]
    assert kinds.index("RolloutRecord") > max(kinds.index("Service"), kinds.index("Deployment"))


async def test_records_that_cannot_be_written_stop_nothing_and_are_written_later() -> None:
    cluster = await serving()
    cluster.api.refused = {ROLLOUT_RECORDS}
    cluster.declare(spec("2"))
    while cluster.status.get("stableRevision") != TWO:
        cluster.serve(30)
        await cluster.turn()
    assert cluster.metrics.record_errors._value.get() > 0
    assert outcomes(cluster) == [(ONE, "Promoted")]

    cluster.api.refused = set()
    await settle(cluster)

    assert outcomes(cluster) == [(ONE, "Promoted"), (TWO, "Promoted")]
    assert replayed(list(cluster.records().values())[-1]).is_whole


async def test_a_rollout_that_ended_while_records_could_not_be_written_wakes_the_key_again() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    while not cluster.status.get("rejectedRevisions"):
        cluster.api.refused = {ROLLOUT_RECORDS}
        cluster.serve(30, failing=TWO)
        answer = await cluster.turn()
    while answer == 0.0:
        answer = await cluster.turn()
    assert isinstance(answer, float)
    cluster.api.refused = set()
    cluster.now += keeping.LONGEST_RETRY_SECONDS
    assert await cluster.turn() is Done.UNTIL_NEWS
    assert outcomes(cluster)[-1] == (TWO, "RolledBack")


@pytest.mark.parametrize("failing", [None, TWO])
async def test_an_operator_killed_at_any_write_leaves_finished_records_that_replay(failing: str | None) -> None:
    kills, unseen = 0, 0
    while True:
        cluster = await serving()
        cluster.declare(spec("2", rollout={"guard": {"durationSeconds": 0}}))
        cluster.api.fail_after = kills
        try:
            await settle(cluster, failing=failing)
        except Killed:
            cluster.api.fail_after = None
            cluster.start_operator()
            await settle(cluster, failing=failing)
        else:
            break
        told = outcomes(cluster)
        if (TWO, "RolledBack" if failing else "Promoted") not in told:
            # Status had told the end before the record was begun: nothing is known of it any more.
            assert told == [(ONE, "Promoted")]
            unseen += 1
        assert None not in [outcome for _, outcome in told]
        for record in cluster.records().values():
            assert replayed(record).differences == (), f"killed at write {kills}"
        kills += 1
    assert kills > 10
    assert unseen == 0


async def test_another_operator_goes_on_in_a_new_segment_and_says_what_it_missed() -> None:
    cluster = await serving()
    cluster.declare(spec("2", rollout={"steps": [{"weightPercent": 50, "minimumSeconds": 20}]}))
    while not cluster.status.get("rollout", {}).get("servingSince"):
        await cluster.turn()
    for _ in range(5):
        cluster.serve(30)
        await cluster.turn()
    cluster.start_operator()
    await settle(cluster)

    record = list(cluster.records().values())[-1]
    told = replayed(record)
    assert [one.value for one in told.beginnings] == ["Start", "Gap"]
    assert (told.differences, len(record["gaps"])) == ((), 1)
    assert record["outcome"] == "Promoted"


async def test_a_record_that_somebody_deletes_is_made_again_and_one_that_was_edited_is_written_over() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    await cluster.turn()
    (name,) = [name for name, one in cluster.records().items() if "outcome" not in one]
    edited = cluster.api.objects[ROLLOUT_RECORDS, NAMESPACE, name]
    cluster.api.put(ROLLOUT_RECORDS, {**edited, "metadata": dict(edited["metadata"])})
    while not cluster.status.get("rollout", {}).get("servingSince"):
        await cluster.turn()
    cluster.now += keeping.LONGEST_RETRY_SECONDS
    await cluster.turn()
    assert cluster.records()[name]["steps"][-1]["phase"] == "Step"
    del cluster.api.objects[ROLLOUT_RECORDS, NAMESPACE, name]
    await settle(cluster)
    assert cluster.records()[name]["outcome"] == "Promoted"


async def test_a_namespace_that_is_being_deleted_needs_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise NamespaceTerminatingError("because it is being terminated")

    cluster = Cluster()
    cluster.declare(spec("1"))
    monkeypatch.setattr(records, "write", refuse)
    await settle(cluster)

    assert cluster.metrics.record_errors._value.get() == 0


async def test_the_oldest_finished_records_go_beyond_the_limit() -> None:
    cluster = await serving()
    for version in "2345":
        cluster.declare(spec(version, rollout={"historyLimit": 2, "guard": {"durationSeconds": 0}}))
        await settle(cluster)

    assert outcomes(cluster) == [(revision_of("4"), "Promoted"), (revision_of("5"), "Promoted")]


async def test_records_of_somebody_else_are_neither_closed_nor_pruned() -> None:
    cluster = await serving()
    labels = {"kedge.dev/model-deployment": KEY_NAME}
    for name, outcome in (("theirs-open", None), ("theirs-done", "Promoted")):
        more = {"kedge.dev/outcome": outcome} if outcome else {}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels | more}
        cluster.api.put(ROLLOUT_RECORDS, {"metadata": metadata, "record": {"candidate": "x"}})
    cluster.start_operator()
    cluster.declare(spec("2", rollout={"historyLimit": 1, "guard": {"durationSeconds": 0}}))
    await settle(cluster)

    assert cluster.records()["theirs-open"] == cluster.records()["theirs-done"] == {"candidate": "x"}
    assert [one for one in outcomes(cluster) if one[0] != "x"] == [(TWO, "Promoted")]


async def test_a_record_of_a_later_kedge_is_left_alone() -> None:
    cluster = await serving()
    cluster.declare(spec("2"))
    await cluster.turn()
    (name,) = [name for name, one in cluster.records().items() if "outcome" not in one]
    cluster.api.objects[ROLLOUT_RECORDS, NAMESPACE, name]["record"] = {"unknown": "form"}
    cluster.start_operator()
    await settle(cluster)

    assert cluster.status["stableRevision"] == TWO
    assert cluster.records()[name] == {"unknown": "form"}


async def test_a_long_rollout_is_stored_each_time_a_segment_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "SEGMENT_BYTES", 2000)
    cluster = await serving()
    cluster.declare(spec("2", rollout={"steps": [{"weightPercent": 50, "minimumSeconds": 60}]}))
    while not cluster.status.get("rollout", {}).get("servingSince"):
        await cluster.turn()
    for _ in range(40):
        cluster.serve(30)
        await cluster.turn()

    record = list(cluster.records().values())[-1]
    assert len(record["journal"]["segments"]) > 1
    assert replayed(record).differences == ()
