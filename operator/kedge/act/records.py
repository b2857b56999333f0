"""Writes RolloutRecords: created when a rollout begins, replaced while it goes on, and left alone after its end.

Their contents are neither watched nor cached, for they are many and large: they are read by name, and listed
by their metadata.
"""

import logging

import pydantic

from kedge import kubernetes_api
from kedge.act import children
from kedge.api.records import KIND, Record
from kedge.decide.recording import Subject
from kedge.desired import names
from kedge.desired.names import Owner
from kedge.kubernetes_api import ROLLOUT_RECORDS, KubernetesApi, ObjectDict

logger = logging.getLogger(__name__)

COMPONENT = "rollout-record"


def name_of(owner: Owner, subject: Subject) -> str:
    """Returns the name of the object with the record of a rollout or guard."""
    return names.record_name(owner, subject.revision, subject.started_at)


async def read(api: KubernetesApi, owner: Owner, name: str) -> tuple[Record | None, str] | None:
    """Returns a record of this ModelDeployment and its resourceVersion, or None when there is none.

    The record is None when this Kedge does not understand it.
    """
    try:
        found = await api.get(ROLLOUT_RECORDS, owner.namespace, name)
    except kubernetes_api.NotFoundError:
        return None
    if not children.is_owned(found, owner.uid):
        return None
    version = found["metadata"]["resourceVersion"]
    try:
        return Record.model_validate(found["record"]), version
    except pydantic.ValidationError as error:
        logger.warning("cannot understand RolloutRecord %s: %s", name, error.errors()[0]["msg"])
        return None, version


async def write(api: KubernetesApi, owner: Owner, record: Record, version: str | None) -> str:
    """Creates the record, or replaces the one of this resourceVersion; returns the new resourceVersion.

    Raises:
        ConflictError: It exists already, or was changed since: read it again.
    """
    manifest = _manifest(owner, record)
    if version is None:
        written = await api.create(ROLLOUT_RECORDS, manifest)
    else:
        manifest["metadata"]["resourceVersion"] = version
        written = await api.replace(ROLLOUT_RECORDS, manifest)
    return str(written["metadata"]["resourceVersion"])


async def unfinished(api: KubernetesApi, owner: Owner) -> tuple[str, ...]:
    """Returns the names of this ModelDeployment's records that have no outcome yet."""
    listed = await _list(api, owner, f"!{names.OUTCOME_LABEL}")
    return tuple(item["metadata"]["name"] for item in listed)


async def prune(api: KubernetesApi, owner: Owner, *, keep: int) -> None:
    """Deletes the oldest finished records beyond so many."""
    listed = await _list(api, owner, names.OUTCOME_LABEL)
    by_age = sorted(listed, key=_age)
    for item in by_age[: max(0, len(by_age) - keep)]:
        metadata = item["metadata"]
        await api.delete(ROLLOUT_RECORDS, owner.namespace, metadata["name"], uid=metadata["uid"])


def _age(item: ObjectDict) -> tuple[str, str]:
    """Orders records: objects know the second in which they were made, their names end with the millisecond."""
    return item["metadata"]["creationTimestamp"], item["metadata"]["name"].rpartition("-")[2]


async def _list(api: KubernetesApi, owner: Owner, condition: str) -> list[ObjectDict]:
    labels = f"{names.selector(owner)},{condition}"
    listing = await api.list(ROLLOUT_RECORDS, owner.namespace, labels=labels, metadata_only=True)
    return [item for item in listing.items if children.is_owned(item, owner.uid)]


def _manifest(owner: Owner, record: Record) -> ObjectDict:
    labels = names.labels(owner, record.candidate) | {"app.kubernetes.io/component": COMPONENT}
    if record.outcome is not None:
        labels[names.OUTCOME_LABEL] = record.outcome.value
    metadata = names.metadata(owner, names.record_name(owner, record.candidate, record.started_at), record.candidate)
    return {
        "apiVersion": ROLLOUT_RECORDS.api_version,
        "kind": KIND,
        "metadata": {**metadata, "labels": labels},
        "record": record.to_json(),
    }
