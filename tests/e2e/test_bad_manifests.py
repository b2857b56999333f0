"""A bad manifest never reaches the operator: the API server refuses it and names the field and the remedy."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.manifests import ABSENT, SHA256, model_deployment, objective

pytestmark = pytest.mark.e2e

Kubectl = Callable[..., subprocess.CompletedProcess[str]]

BAD_SPECS = [
    pytest.param({"model": ABSENT}, "spec.model", "Required value", id="no model"),
    pytest.param({"model.uri": ABSENT}, "spec.model.uri", "Required value", id="no uri"),
    pytest.param(
        {"model.uri": "ftp://models/churn"}, "spec.model.uri", "must be https://HOST/PATH", id="unknown scheme"
    ),
    pytest.param({"model.uri": "s3://models"}, "spec.model.uri", "s3://BUCKET/KEY", id="bucket, no key"),
    pytest.param(
        {"model": {"uri": "s3://models/churn"}}, "spec.model.sha256", "required for a remote uri", id="s3, no digest"
    ),
    pytest.param(
        {"model.secretRef": {"name": "bucket"}}, "spec.model.secretRef", "belongs to s3 and gs", id="secret for http"
    ),
    pytest.param(
        {"model.uri": "gs://models/churn", "model.secretRef": {}},
        "spec.model.secretRef.name",
        "Required value",
        id="secret without a name",
    ),
    pytest.param({"model.uri": "churn.skops"}, "spec.model.uri", "must be https://HOST/PATH", id="no scheme"),
    pytest.param({"model.uri": "file://churn"}, "spec.model.uri", "must be https://HOST/PATH", id="relative file"),
    pytest.param({"model.uri": "configmap://churn"}, "spec.model.uri", "configmap://NAME/KEY", id="configmap, no key"),
    pytest.param({"model.uri": 7}, "spec.model.uri", "must be of type string", id="uri is a number"),
    pytest.param({"model.sha256": ABSENT}, "spec.model.sha256", "required for a remote uri", id="remote, no digest"),
    pytest.param({"model.sha256": SHA256.upper()}, "spec.model.sha256", "lowercase hexadecimal", id="uppercase digest"),
    pytest.param({"model.sha256": SHA256[:40]}, "spec.model.sha256", "64 lowercase", id="short digest"),
    pytest.param({"model.sha256": SHA256 + "0"}, "spec.model.sha256", "more than 64", id="long digest"),
    pytest.param({"model.format": "Pickle"}, "spec.model.format", "unknown field", id="unknown field of model"),
    pytest.param({"rolout": {}}, "spec.rolout", "unknown field", id="misspelt field"),
    pytest.param({"replicas": 0}, "spec.replicas", "greater than or equal to 1", id="no replicas"),
    pytest.param({"replicas": -2}, "spec.replicas", "greater than or equal to 1", id="negative replicas"),
    pytest.param({"replicas": 501}, "spec.replicas", "less than or equal to 500", id="too many replicas"),
    pytest.param({"replicas": "three"}, "spec.replicas", "must be of type integer", id="replicas in words"),
    pytest.param({"traffic.mode": "Gateway"}, "spec.traffic.mode", 'supported values: "Service"', id="unknown mode"),
    pytest.param({"objectives": []}, "spec.objectives", "at least 1 items", id="no objectives"),
    pytest.param(
        {"objectives": [objective(name=f"objective-{number}") for number in range(17)]},
        "spec.objectives",
        "must have at most 16 items",
        id="too many objectives",
    ),
    pytest.param(
        {"objectives": [objective(), objective(action="Alert")]},
        "spec.objectives[1]",
        "Duplicate value",
        id="same name",
    ),
    pytest.param({"objectives": [objective(name="Fast!")]}, "spec.objectives[0].name", "should match", id="bad name"),
    pytest.param(
        {"objectives": [objective(targetPercent=100)]},
        "spec.objectives[0].targetPercent",
        "100 leaves no error budget",
        id="target of 100",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent="100.0")]},
        "spec.objectives[0].targetPercent",
        "100 leaves no error budget",
        id="target of 100 as a string",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent=0)]},
        "spec.objectives[0].targetPercent",
        "must lie between 0 and 100",
        id="target of 0",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent=-1)]},
        "spec.objectives[0].targetPercent",
        "must lie between 0 and 100",
        id="negative target",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent="abc")]},
        "spec.objectives[0].targetPercent",
        "should match",
        id="target in words",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent="99%")]},
        "spec.objectives[0].targetPercent",
        "should match",
        id="target with a sign",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent=99.5)]},
        "spec.objectives[0].targetPercent",
        "must be of type integer,string",
        id="target as a float",
    ),
    pytest.param(
        {"objectives": [objective(targetPercent=ABSENT)]},
        "spec.objectives[0].targetPercent",
        "required when compareTo is Target",
        id="no target",
    ),
    pytest.param(
        {"objectives": [objective(tolerancePercent="1")]},
        "spec.objectives[0].tolerancePercent",
        "belongs to compareTo Stable",
        id="tolerance against a target",
    ),
    pytest.param(
        {"objectives": [objective(compareTo="Stable", tolerancePercent="1")]},
        "spec.objectives[0].targetPercent",
        "belongs to compareTo Target",
        id="target against stable",
    ),
    pytest.param(
        {"objectives": [objective(compareTo="Stable", targetPercent=ABSENT)]},
        "spec.objectives[0].tolerancePercent",
        "required when compareTo is Stable",
        id="no tolerance against stable",
    ),
    pytest.param(
        {"objectives": [objective(compareTo="Stable", targetPercent=ABSENT, tolerancePercent=51)]},
        "spec.objectives[0].tolerancePercent",
        "must lie between 0 and 50",
        id="too much tolerance",
    ),
    pytest.param(
        {"objectives": [objective(compareTo="Yesterday")]},
        "spec.objectives[0].compareTo",
        'supported values: "Target", "Stable"',
        id="unknown comparison",
    ),
    pytest.param(
        {"objectives": [objective(action="Explode")]},
        "spec.objectives[0].action",
        'supported values: "Rollback", "Hold", "Alert"',
        id="unknown action",
    ),
    pytest.param(
        {"objectives": [objective(indicator={"type": "Beauty"})]},
        "spec.objectives[0].indicator.type",
        'supported values: "Availability", "Latency"',
        id="unknown indicator",
    ),
    pytest.param(
        {"objectives": [objective(indicator={"type": "Latency"})]},
        "spec.objectives[0].indicator.thresholdMilliseconds",
        "required for an indicator of type Latency",
        id="latency, no threshold",
    ),
    pytest.param(
        {"objectives": [objective(indicator={"type": "Availability", "thresholdMilliseconds": 5})]},
        "spec.objectives[0].indicator.thresholdMilliseconds",
        "type Latency only",
        id="availability with a threshold",
    ),
    pytest.param(
        {"objectives": [objective(indicator={"type": "Latency", "thresholdMilliseconds": 0})]},
        "spec.objectives[0].indicator.thresholdMilliseconds",
        "greater than or equal to 1",
        id="threshold of 0",
    ),
    pytest.param({"metrics.intervalSeconds": 0}, "spec.metrics.intervalSeconds", "equal to 1", id="interval of 0"),
    pytest.param({"rollout.steps": []}, "spec.rollout.steps", "at least 1 items", id="no steps"),
    pytest.param(
        {"rollout.steps": [{"weightPercent": weight} for weight in range(1, 22)]},
        "spec.rollout.steps",
        "must have at most 20 items",
        id="too many steps",
    ),
    pytest.param(
        {"rollout.steps": [{"weightPercent": 50}, {"weightPercent": 5}]},
        "spec.rollout.steps",
        "rising weights",
        id="falling weights",
    ),
    pytest.param(
        {"rollout.steps": [{"weightPercent": 5}, {"weightPercent": 5}]},
        "spec.rollout.steps",
        "rising weights",
        id="equal weights",
    ),
    pytest.param(
        {"rollout.steps": [{"weightPercent": 0}]},
        "spec.rollout.steps[0].weightPercent",
        "greater than or equal to 1",
        id="weight of 0",
    ),
    pytest.param(
        {"rollout.steps": [{"weightPercent": 101}]},
        "spec.rollout.steps[0].weightPercent",
        "less than or equal to 100",
        id="weight of 101",
    ),
    pytest.param(
        {"rollout.steps": [{"minimumSeconds": 60}]},
        "spec.rollout.steps[0].weightPercent",
        "Required value",
        id="step without weight",
    ),
    pytest.param(
        {"rollout.steps": [{"weightPercent": 5, "minimumSeconds": -1}]},
        "spec.rollout.steps[0].minimumSeconds",
        "greater than or equal to 0",
        id="negative duration",
    ),
    pytest.param(
        {"rollout.steps": [{"weightPercent": 5, "minimumSeconds": 900}]},
        "spec.rollout.stepDeadlineSeconds",
        "longer than the minimumSeconds of every step",
        id="deadline before the step ends",
    ),
    pytest.param(
        {"rollout.falseRollbackPercent": "0"},
        "spec.rollout.falseRollbackPercent",
        "must lie between 0.001 and 20",
        id="no risk at all",
    ),
    pytest.param(
        {"rollout.falseRollbackPercent": 21},
        "spec.rollout.falseRollbackPercent",
        "must lie between 0.001 and 20",
        id="too much risk",
    ),
    pytest.param(
        {"rollout.enforcement": "enforce"}, "spec.rollout.enforcement", '"Enforce", "Observe"', id="enum in lowercase"
    ),
    pytest.param({"rollout.minimumRequests": 0}, "spec.rollout.minimumRequests", "equal to 1", id="no requests needed"),
    pytest.param({"rollout": "fast"}, "spec.rollout", "must be of type object", id="rollout is a word"),
    pytest.param(
        {"server.env": [{"name": "MODE", "value": "a", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
        "spec.server.env[0]",
        "has both value and valueFrom",
        id="variable with two values",
    ),
    pytest.param(
        {"server.env": [{"name": "MODE", "valueFrom": {}}]},
        "spec.server.env[0].valueFrom",
        "exactly one of secretKeyRef and configMapKeyRef",
        id="variable from nowhere",
    ),
    pytest.param({"server.env": [{"name": "1ST", "value": ""}]}, "spec.server.env[0].name", "match", id="bad variable"),
    pytest.param(
        {"server.env": [{"name": "MODE", "value": True}]},
        "spec.server.env[0].value",
        "must be of type string",
        id="variable is a boolean",
    ),
    pytest.param(
        {"server.resources": {"limits": {"memory": "1 GB"}}},
        "spec.server.resources.limits.memory",
        "should match",
        id="bad quantity",
    ),
    pytest.param(
        {"server.resources": {"requests": {"cpu": 0.5}}},
        "spec.server.resources.requests.cpu",
        "must be of type integer,string",
        id="quantity as a float",
    ),
    pytest.param(
        {"server.imagePullPolicy": "Sometimes"},
        "spec.server.imagePullPolicy",
        '"Always", "IfNotPresent", "Never"',
        id="unknown pull policy",
    ),
    pytest.param({"server.image": ""}, "spec.server.image", "at least 1 chars", id="empty image"),
]


@pytest.mark.parametrize(("changes", "field", "remedy"), BAD_SPECS)
def test_a_bad_spec_is_refused_by_field(
    kubectl: Kubectl, namespace: str, changes: dict[str, Any], field: str, remedy: str
) -> None:
    applied = kubectl("apply", "--filename=-", stdin=model_deployment(changes, namespace=namespace))

    assert applied.returncode != 0
    assert field in applied.stderr
    assert remedy in applied.stderr


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        pytest.param("c" * 41, "at most 40 characters", id="too long"),
        pytest.param("7-churn", "must start with a letter", id="starts with a digit"),
        pytest.param("churn.v7", "no dot", id="has a dot"),
        pytest.param("Churn", "lowercase RFC 1123", id="has a capital letter"),
    ],
)
def test_a_bad_name_is_refused(kubectl: Kubectl, namespace: str, name: str, remedy: str) -> None:
    applied = kubectl("apply", "--filename=-", stdin=model_deployment({}, name=name, namespace=namespace))

    assert applied.returncode != 0
    assert "metadata.name" in applied.stderr
    assert remedy in applied.stderr


def test_every_fault_is_told_at_once(kubectl: Kubectl, namespace: str) -> None:
    manifest = model_deployment({"replicas": 0, "rollout.steps": [{"weightPercent": 101}]}, namespace=namespace)

    applied = kubectl("apply", "--filename=-", stdin=manifest)

    assert "spec.replicas" in applied.stderr
    assert "spec.rollout.steps[0].weightPercent" in applied.stderr


def test_no_bad_manifest_was_stored(kubectl: Kubectl, namespace: str) -> None:
    listed = kubectl("get", "modeldeployments", "--namespace", namespace, "--output=name")

    assert (listed.returncode, listed.stdout) == (0, "")
