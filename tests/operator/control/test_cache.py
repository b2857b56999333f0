from typing import Any

from kedge import kubernetes_api
from kedge.control.cache import Cache, Key
from kedge.desired import names

KEY = Key("prod", "churn")


def pod(name: str, version: int, *, uid: str = "u", owner: str | None = "churn") -> dict[str, Any]:
    labels = {names.MODEL_DEPLOYMENT_LABEL: owner} if owner else {}
    return {
        "metadata": {
            "name": name,
            "namespace": "prod",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": labels,
        }
    }


def cached(cache: Cache) -> dict[str, str]:
    children = cache.children(kubernetes_api.PODS, KEY)
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in children}


def test_a_late_event_does_not_bring_an_old_version_back() -> None:
    cache = Cache()
    cache.put(kubernetes_api.PODS, pod("a", 10))
    cache.put(kubernetes_api.PODS, pod("a", 9))
    assert cached(cache) == {"a": "10"}


def test_a_late_deletion_does_not_take_a_new_object_of_the_same_name() -> None:
    cache = Cache()
    cache.put(kubernetes_api.PODS, pod("a", 11, uid="new"))
    cache.drop(kubernetes_api.PODS, pod("a", 10, uid="old"))
    assert cached(cache) == {"a": "11"}
    cache.drop(kubernetes_api.PODS, pod("a", 12, uid="new"))
    assert cached(cache) == {}


def test_an_object_of_nobody_is_not_kept() -> None:
    cache = Cache()
    cache.put(kubernetes_api.PODS, pod("a", 1, owner=None))
    cache.drop(kubernetes_api.PODS, pod("a", 1, owner=None))
    assert cached(cache) == {}


def test_a_full_list_adds_what_was_missed_and_drops_what_is_gone() -> None:
    cache = Cache()
    cache.put(kubernetes_api.PODS, pod("gone", 5, uid="g"))
    cache.put(kubernetes_api.PODS, pod("newer-than-the-list", 30, uid="n"))
    listed = [pod("missed", 8, uid="m")]
    cache.replace_all(kubernetes_api.PODS, listed, namespace=None, older_than=20)
    assert cached(cache) == {"missed": "8", "newer-than-the-list": "30"}


def test_a_list_of_one_namespace_says_nothing_of_the_others() -> None:
    cache = Cache()
    cache.put(kubernetes_api.PODS, pod("a", 5))
    cache.replace_all(kubernetes_api.PODS, [], namespace="elsewhere", older_than=20)
    assert cached(cache) == {"a": "5"}
