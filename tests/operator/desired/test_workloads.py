from typing import Any

import pytest

from kedge.api import specs
from kedge.desired import names, revisions, routing, workloads
from kedge.desired.names import Owner

OWNER = Owner("churn", "prod", "uid-1")
SHA = "a" * 64


def pod_spec(model: dict[str, Any], edges: tuple[int, ...] = (), **server: Any) -> dict[str, Any]:
    spec = specs.ModelDeploymentSpec.model_validate({"model": model, "server": server})
    revision = revisions.declare(spec, default_image="server:1", sequence=1)
    made = workloads.deployment(OWNER, revision, 2, latency_edges_milliseconds=edges)
    found: dict[str, Any] = made["spec"]["template"]["spec"]
    return found


def argument(container: dict[str, Any], name: str) -> str:
    arguments: list[str] = container["args"]
    return arguments[arguments.index(name) + 1]


def test_a_remote_artifact_is_fetched_and_checked_before_the_server_starts() -> None:
    spec = pod_spec({"uri": "https://models/churn/7.skops", "sha256": SHA})
    fetch, server = spec["initContainers"][0], spec["containers"][0]
    assert fetch["args"] == ["fetch", "https://models/churn/7.skops", "--sha256", SHA, "--out", "/models/7.skops"]
    assert argument(server, "--model-path") == "/models/7.skops"
    assert argument(server, "--sha256") == SHA
    assert spec["volumes"] == [{"name": "model", "emptyDir": {}}]
    assert server["volumeMounts"][0]["readOnly"] is True
    assert fetch["volumeMounts"][0]["readOnly"] is False


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://models/churn/7.skops", "/models/7.skops"),
        ("gs://models/churn/7.skops", "/models/7.skops"),
        ("s3://models/teams/churn/", "/models/churn"),
        ("https://models/churn/", "/models/churn"),
    ],
)
def test_an_object_or_a_package_is_fetched_under_its_last_name(uri: str, path: str) -> None:
    spec = pod_spec({"uri": uri, "sha256": SHA})
    fetch, server = spec["initContainers"][0], spec["containers"][0]
    assert fetch["args"] == ["fetch", uri, "--sha256", SHA, "--out", path]
    assert argument(server, "--model-path") == path
    assert "envFrom" not in fetch


def test_credentials_reach_what_fetches_and_nothing_else() -> None:
    spec = pod_spec({"uri": "s3://models/7.skops", "sha256": SHA, "secretRef": {"name": "bucket"}})
    assert spec["initContainers"][0]["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert "envFrom" not in spec["containers"][0]
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("uri", "volume", "path"),
    [
        (
            "configmap://models/churn.skops",
            {"configMap": {"name": "models", "items": [{"key": "churn.skops", "path": "churn.skops"}]}},
            "/models/churn.skops",
        ),
        (
            "pvc://store/churn/7.skops",
            {"persistentVolumeClaim": {"claimName": "store", "readOnly": True}},
            "/models/churn/7.skops",
        ),
        ("file:///srv/churn.skops", None, "/srv/churn.skops"),
    ],
)
def test_an_artifact_that_is_at_hand_is_mounted(uri: str, volume: dict[str, Any] | None, path: str) -> None:
    spec = pod_spec({"uri": uri})
    assert "initContainers" not in spec
    assert spec.get("volumes") == (None if volume is None else [{"name": "model", **volume}])
    assert argument(spec["containers"][0], "--model-path") == path
    assert "--sha256" not in spec["containers"][0]["args"]


def test_the_histogram_gets_an_edge_at_every_objective() -> None:
    container = pod_spec({"uri": "file:///m"}, edges=(50, 200))["containers"][0]
    given = [value for flag, value in zip(container["args"], container["args"][1:], strict=False) if "latency" in flag]
    assert given == ["50", "200"]


def test_a_model_is_compiled_only_where_that_is_declared() -> None:
    model = {"uri": "file:///m.skops"}
    assert "--compile" not in pod_spec(model)["containers"][0]["args"]
    assert argument(pod_spec(model, compile="Auto")["containers"][0], "--compile") == "Auto"


def test_the_edges_of_running_pods_are_read_back() -> None:
    spec = specs.ModelDeploymentSpec.model_validate({"model": {"uri": "file:///m"}})
    revision = revisions.declare(spec, default_image="server:1", sequence=1)
    for edges in ((), (50,), (50, 200)):
        made = workloads.deployment(OWNER, revision, 1, latency_edges_milliseconds=edges)
        assert workloads.latency_edges(made) == edges


def test_pods_are_restricted() -> None:
    spec = pod_spec({"uri": "https://m/x", "sha256": SHA})
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_what_the_user_declares_of_the_server_reaches_the_pods() -> None:
    spec = pod_spec(
        {"uri": "file:///m"},
        image="mine:2",
        imagePullPolicy="Never",
        imagePullSecrets=[{"name": "pull"}],
        resources={"limits": {"memory": "1Gi", "cpu": 1}},
        env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        serviceAccountName="reader",
        nodeSelector={"disk": "ssd"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
    )
    container = spec["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("mine:2", "Never")
    assert container["resources"] == {"limits": {"memory": "1Gi", "cpu": "1"}}
    assert container["env"] == [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["serviceAccountName"] == "reader"
    assert spec["automountServiceAccountToken"] is True
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


@pytest.mark.parametrize("revision", [routing.ALL_REVISIONS, "4be1f0a2c9"])
def test_a_service_selects_one_revision_or_all(revision: str) -> None:
    service = routing.service(OWNER, revision)
    assert routing.selected_revision(service) == revision
    assert service["spec"]["selector"][names.MODEL_DEPLOYMENT_LABEL] == "churn"


def test_every_child_is_owned_and_bears_the_recommended_labels() -> None:
    spec = specs.ModelDeploymentSpec.model_validate({"model": {"uri": "file:///m"}})
    revision = revisions.declare(spec, default_image="server:1", sequence=1)
    children = [
        workloads.deployment(OWNER, revision, 1, latency_edges_milliseconds=()),
        workloads.disruption_budget(OWNER),
        routing.service(OWNER, revision.hash),
        revisions.controller_revision(OWNER, revision),
    ]
    for child in children:
        assert child["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
        assert child["metadata"]["ownerReferences"][0]["controller"] is True
        recommended = {"name", "instance", "component", "part-of", "managed-by"}
        assert {f"app.kubernetes.io/{label}" for label in recommended} <= child["metadata"]["labels"].keys()
