"""The cluster's objects as last seen: fed by watches, by our own writes, and by full lists that repair it."""

import dataclasses
from collections.abc import Iterable, Iterator

from kedge.desired import names
from kedge.kubernetes_api import MODEL_DEPLOYMENTS, ObjectDict, Resource


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(resource: Resource, item: ObjectDict) -> Key | None:
    """Returns the ModelDeployment that an object is or belongs to, or None."""
    metadata = item["metadata"]
    if resource is MODEL_DEPLOYMENTS:
        return Key(metadata["namespace"], metadata["name"])
    owner = (metadata.get("labels") or {}).get(names.MODEL_DEPLOYMENT_LABEL)
    return None if owner is None else Key(metadata["namespace"], owner)


class Cache:
    """Objects by kind, ModelDeployment and name."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Key, dict[str, ObjectDict]]] = {}

    def put(self, resource: Resource, item: ObjectDict) -> None:
        """Remembers an object, unless a newer version of it is known."""
        key = key_of(resource, item)
        if key is None:
            return
        items = self._objects.setdefault(resource, {}).setdefault(key, {})
        known = items.get(item["metadata"]["name"])
        if known is None or _version(known) <= _version(item) or known["metadata"]["uid"] != item["metadata"]["uid"]:
            items[item["metadata"]["name"]] = item

    def drop(self, resource: Resource, item: ObjectDict) -> None:
        """Forgets an object that was deleted; one of the same name that came after it stays."""
        key = key_of(resource, item)
        items = self._objects.get(resource, {}).get(key, {}) if key is not None else {}
        known = items.get(item["metadata"]["name"])
        if known is not None and known["metadata"]["uid"] == item["metadata"]["uid"]:
            del items[item["metadata"]["name"]]

    def replace_all(
        self, resource: Resource, listed: Iterable[ObjectDict], *, namespace: str | None, older_than: int
    ) -> None:
        """Repairs the cache from a full list: what a watch lost is added, what it failed to forget is dropped.

        The list is of one namespace, or of all when that is None.

        `older_than` is the collection's resourceVersion when the list was taken: what is newer than the list
        is left alone.
        """
        present = set()
        for item in listed:
            self.put(resource, item)
            present.add(item["metadata"]["uid"])
        for key, items in self._objects.get(resource, {}).items():
            if namespace not in {None, key.namespace}:
                continue
            gone = [
                name
                for name, item in items.items()
                if item["metadata"]["uid"] not in present and _version(item) <= older_than
            ]
            for name in gone:
                del items[name]

    def model_deployment(self, key: Key) -> ObjectDict | None:
        """Returns the ModelDeployment, or None."""
        return self._objects.get(MODEL_DEPLOYMENTS, {}).get(key, {}).get(key.name)

    def children(self, resource: Resource, key: Key) -> Iterator[ObjectDict]:
        """Yields the labelled objects of a kind that belong to a ModelDeployment."""
        yield from self._objects.get(resource, {}).get(key, {}).values()

    def keys(self) -> set[Key]:
        """Returns all ModelDeployments."""
        return {key for key, items in self._objects.get(MODEL_DEPLOYMENTS, {}).items() if items}


def _version(item: ObjectDict) -> int:
    """Returns the resourceVersion as the growing number that it is on every Kubernetes in use."""
    return int(item["metadata"].get("resourceVersion", 0))
