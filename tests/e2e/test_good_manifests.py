"""A good manifest is accepted, and stored with the very defaults that the operator's models have."""

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.e2e.manifests import ABSENT, SHA256, model_deployment, objective

from kedge.api import specs

pytestmark = pytest.mark.e2e

Kubectl = Callable[..., subprocess.CompletedProcess[str]]

LATENCY = {"type": "Latency", "thresholdMilliseconds": 100}

GOOD_SPECS = [
    pytest.param({}, id="nothing but a model"),
    pytest.param({"model": {"uri": "file:///models/churn.skops"}}, id="file in the image"),
    pytest.param({"model": {"uri": "configmap://churn/model.skops"}}, id="configmap"),
    pytest.param({"model": {"uri": "pvc://models/churn/7/model.skops"}}, id="volume"),
    pytest.param({"model": {"uri": "http://models.test:9000/churn?v=7", "sha256": SHA256}}, id="plain http"),
    pytest.param({"model": {"uri": "gs://models/churn/", "sha256": SHA256}}, id="package in a bucket"),
    pytest.param(
        {"model": {"uri": "s3://models/churn/7.skops", "sha256": SHA256, "secretRef": {"name": "bucket"}}},
        id="bucket with a secret",
    ),
    pytest.param({"server": {}, "traffic": {}, "metrics": {}, "rollout": {}}, id="empty sections"),
    pytest.param({"server": None, "rollout": None, "objectives": None}, id="null sections"),
    pytest.param({"replicas": 500}, id="many replicas"),
    pytest.param(
        {
            "objectives": [
                objective(),
                objective(name="latency", indicator=LATENCY, targetPercent="99", action="Hold"),
                objective(name="as-before", compareTo="Stable", targetPercent=ABSENT, tolerancePercent="0.5"),
            ]
        },
        id="each kind of objective",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent="0.001"), objective(name="b", targetPercent="99.999999999")]},
        id="narrow and wide targets",
    ),
    pytest.param(
        {"objectives": [objective(compareTo="Stable", targetPercent=ABSENT, tolerancePercent="0")]}, id="no tolerance"
    ),
    pytest.param({"rollout.steps": [{"weightPercent": weight} for weight in range(1, 21)]}, id="twenty steps"),
    pytest.param({"rollout.steps": [{"weightPercent": 100, "minimumSeconds": 0}]}, id="all at once"),
    pytest.param(
        {
            "rollout.enforcement": "Observe",
            "rollout.falseRollbackPercent": "0.001",
            "rollout.onInsufficientData": "RollBack",
            "rollout.stepDeadlineSeconds": 31,
        },
        id="careful rollout",
    ),
    pytest.param(
        {
            "server": {
                "image": "models/server:7",
                "imagePullPolicy": "Never",
                "imagePullSecrets": [{"name": "pull"}],
                "resources": {
                    "requests": {"cpu": "250m", "memory": "100k"},
                    "limits": {"cpu": "1.5", "memory": "2Gi", "ephemeral-storage": "10G"},
                },
                "env": [
                    {"name": "MODE", "value": ""},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": True}}},
                    {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
                ],
                "serviceAccountName": "models",
                "nodeSelector": {"disk": "fast"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
            }
        },
        id="every setting of the server",
    ),
]


def without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        pruned = {name: without_empty(item) for name, item in value.items()}
        return {name: item for name, item in pruned.items() if item not in ([], {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def without_null(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if value is not None}


@pytest.mark.parametrize("changes", GOOD_SPECS)
def test_a_good_spec_is_stored_with_the_models_defaults(
    kubectl: Kubectl, namespace: str, changes: dict[str, Any]
) -> None:
    manifest = model_deployment(changes, namespace=namespace)

    applied = kubectl("apply", "--dry-run=server", "--output=json", "--filename=-", stdin=manifest)

    assert applied.returncode == 0, applied.stderr
    declared = without_null(json.loads(manifest)["spec"])
    expected = specs.ModelDeploymentSpec.model_validate(declared).to_json()
    assert without_empty(json.loads(applied.stdout)["spec"]) == without_empty(expected)


@pytest.mark.parametrize(("written", "meant"), [(99, "99"), ("99.50", "99.5"), ("099", "99")])
def test_a_percentage_is_stored_as_written_and_read_as_meant(
    kubectl: Kubectl, namespace: str, written: int | str, meant: str
) -> None:
    manifest = model_deployment({"objectives": [objective(targetPercent=written)]}, namespace=namespace)

    applied = kubectl("apply", "--dry-run=server", "--output=json", "--filename=-", stdin=manifest)

    spec = json.loads(applied.stdout)["spec"]
    assert spec["objectives"][0]["targetPercent"] == written
    assert specs.ModelDeploymentSpec.model_validate(spec).to_json()["objectives"][0]["targetPercent"] == meant


@pytest.mark.parametrize("name", ["c", "c" * 40, "churn-v7"])
def test_a_good_name_is_accepted(kubectl: Kubectl, namespace: str, name: str) -> None:
    manifest = model_deployment({}, name=name, namespace=namespace)

    applied = kubectl("apply", "--dry-run=server", "--filename=-", stdin=manifest)

    assert applied.returncode == 0, applied.stderr


def test_a_new_object_says_that_nobody_has_seen_it_yet(kubectl: Kubectl, namespace: str) -> None:
    manifest = model_deployment({}, namespace=namespace)

    created = kubectl("create", "--dry-run=server", "--output=json", "--filename=-", stdin=manifest)

    assert json.loads(created.stdout)["status"]["observedGeneration"] == -1


def test_server_side_apply_merges_objectives_by_name(kubectl: Kubectl, namespace: str) -> None:
    """Two appliers that own different objectives of one list do not overwrite each other."""
    try:
        for manager, fields in (("team", {}), ("platform", {"name": "latency", "indicator": LATENCY})):
            manifest = model_deployment({"objectives": [objective(**fields)]}, name="shared", namespace=namespace)
            applied = kubectl(
                "apply", "--server-side", f"--field-manager={manager}", "--output=json", "--filename=-", stdin=manifest
            )
            assert applied.returncode == 0, applied.stderr

        names = [entry["name"] for entry in json.loads(applied.stdout)["spec"]["objectives"]]
        assert names == ["availability", "latency"]
    finally:
        kubectl("delete", "modeldeployment", "shared", "--namespace", namespace)


def test_kubectl_scale_sets_the_replicas(kubectl: Kubectl, namespace: str) -> None:
    manifest = model_deployment({}, name="scaled", namespace=namespace)
    try:
        kubectl("apply", "--filename=-", stdin=manifest)

        scaled = kubectl("scale", "modeldeployment", "scaled", "--replicas=3", "--namespace", namespace)

        read = kubectl("get", "mdep", "scaled", "--namespace", namespace, "--output=jsonpath={.spec.replicas}")
        assert (scaled.returncode, read.stdout) == (0, "3"), scaled.stderr
    finally:
        kubectl("delete", "modeldeployment", "scaled", "--namespace", namespace)


def test_kubectl_explains_every_level(kubectl: Kubectl) -> None:
    explained = kubectl("explain", "modeldeployment.spec.rollout.steps.weightPercent")

    assert "share of requests" in explained.stdout
