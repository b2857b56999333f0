"""The chart as Helm renders it, and what its schema refuses."""

import json
import pathlib
import re
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hack import generate

from kedge.control import metrics

pytestmark = pytest.mark.e2e

CHART = generate.ROOT / generate.CHART
EVERYTHING_ON = {
    "replicas": 2,
    "networkPolicy": {"enabled": True},
    "podMonitor": {"enabled": True, "labels": {"team": "ml"}},
    "prometheusRule": {"enabled": True},
    "serviceMonitor": {"enabled": True},
}

Manifest = dict[str, Any]


def helm(*arguments: str, values: Manifest | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["helm", *arguments, "--values=-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rendered(values: Manifest | None = None) -> list[Manifest]:
    result = helm("template", "kedge", str(CHART), "--namespace=kedge-system", "--kube-version=1.34.0", values=values)
    assert result.returncode == 0, result.stderr
    return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]


def of_kind(kind: str, values: Manifest | None = None) -> list[Manifest]:
    return [manifest for manifest in rendered(values) if manifest["kind"] == kind]


def only(kind: str, values: Manifest | None = None) -> Manifest:
    (manifest,) = of_kind(kind, values)
    return manifest


def pod_specs(values: Manifest | None = None) -> Iterator[Manifest]:
    yield only("Deployment", values)["spec"]["template"]["spec"]
    yield only("Pod", values)["spec"]


def operator_rules(values: Manifest | None = None) -> list[tuple[str, Manifest]]:
    """Returns what the operator may do, with the name of the role that allows it."""
    kinds = ("ClusterRole", "Role")
    roles = [
        role
        for role in rendered(values)
        if role["kind"] in kinds and not role["metadata"]["name"].endswith(("-view", "-edit"))
    ]
    return [(role["metadata"]["name"], rule) for role in roles for rule in role["rules"]]


def environment(values: Manifest | None = None) -> Manifest:
    (container,) = only("Deployment", values)["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


def test_the_linter_finds_nothing_in_any_configuration() -> None:
    for values in ({}, EVERYTHING_ON, {"watchNamespaces": ["a", "b"]}):
        linted = helm("lint", str(CHART), "--strict", "--kube-version=1.34.0", values=values)
        assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("values", [{}, EVERYTHING_ON])
def test_every_pod_meets_the_restricted_standard(values: Manifest) -> None:
    for pod in pod_specs(values):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]) == {"requests", "limits"}


def test_only_the_operator_gets_a_token() -> None:
    operator, test = pod_specs()

    assert only("ServiceAccount")["automountServiceAccountToken"] is False
    assert operator["automountServiceAccountToken"] is True
    assert test["automountServiceAccountToken"] is False


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["a"]}])
def test_no_permission_has_a_wildcard(values: Manifest) -> None:
    roles = [manifest for manifest in rendered(values) if manifest["kind"] in {"ClusterRole", "Role"}]
    granted = [word for role in roles for rule in role["rules"] for words in rule.values() for word in words]

    assert granted
    assert not [word for word in granted if "*" in word]


def test_the_operator_cannot_read_secrets_nor_write_what_users_own() -> None:
    for _, rule in operator_rules():
        assert "secrets" not in rule["resources"]
        if "modeldeployments" in rule["resources"]:
            assert set(rule["verbs"]) == {"get", "list", "watch"}


def test_the_lease_is_the_only_one_that_the_operator_may_change() -> None:
    changing = [
        rule
        for _, rule in operator_rules()
        if "leases" in rule["resources"] and {"update", "patch"} & set(rule["verbs"])
    ]

    assert [rule["resourceNames"] for rule in changing] == [["kedge"]]


def test_all_namespaces_take_a_cluster_role() -> None:
    assert {name for name, _ in operator_rules()} == {"kedge", "kedge-leader-election"}
    assert only("ClusterRoleBinding")["roleRef"]["name"] == "kedge"
    assert environment()["KEDGE_WATCH_NAMESPACES"] == ""


def test_watched_namespaces_take_a_role_in_each_and_nothing_beyond() -> None:
    values = {"watchNamespaces": ["team-a", "7"], "rbac": {"aggregateRoles": False}}

    bindings = of_kind("RoleBinding", values)

    assert {binding["metadata"]["namespace"] for binding in bindings} == {"team-a", "7", "kedge-system"}
    assert of_kind("ClusterRole", values) == of_kind("ClusterRoleBinding", values) == []
    assert environment(values)["KEDGE_WATCH_NAMESPACES"] == "team-a,7"


def test_every_binding_names_the_operators_account_and_a_role_that_exists() -> None:
    manifests = rendered({"serviceAccount": {"name": "captain"}, "watchNamespaces": ["team-a"]})
    roles = {(role["kind"], role["metadata"].get("namespace"), role["metadata"]["name"]) for role in manifests}

    for binding in [manifest for manifest in manifests if manifest["kind"].endswith("Binding")]:
        reference = binding["roleRef"]
        assert (reference["kind"], binding["metadata"].get("namespace"), reference["name"]) in roles
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "captain", "namespace": "kedge-system"}]
    assert (
        only("Deployment", {"serviceAccount": {"name": "captain"}})["spec"]["template"]["spec"]["serviceAccountName"]
        == "captain"
    )


def test_the_clusters_own_roles_are_extended_to_model_deployments() -> None:
    roles = {role["metadata"]["name"]: role for role in of_kind("ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"

    assert roles["kedge-view"]["metadata"]["labels"][f"{prefix}view"] == "true"
    assert roles["kedge-edit"]["metadata"]["labels"][f"{prefix}edit"] == "true"
    assert {verb for rule in roles["kedge-view"]["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert not [rule for rule in roles["kedge-edit"]["rules"] if "modeldeployments/status" in rule["resources"]]
    writing = [rule for rule in roles["kedge-edit"]["rules"] if "rolloutrecords" in rule["resources"]]
    assert [set(rule["verbs"]) for rule in writing] == [{"delete", "deletecollection"}]


def test_the_definitions_are_the_generated_ones_and_outlive_the_release() -> None:
    definitions = {one["metadata"]["name"]: one for one in of_kind("CustomResourceDefinition")}

    assert definitions.keys() == {"modeldeployments.kedge.dev", "rolloutrecords.kedge.dev"}
    for file in (generate.CRD_FILE, generate.RECORD_CRD_FILE):
        generated = yaml.safe_load((generate.ROOT / "crds" / file).read_text(encoding="utf-8"))
        definition = definitions[generated["metadata"]["name"]]
        assert definition["spec"] == generated["spec"]
        assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_definitions_can_be_left_out_or_left_to_helm() -> None:
    assert of_kind("CustomResourceDefinition", {"crds": {"install": False}}) == []
    definitions = of_kind("CustomResourceDefinition", {"crds": {"keep": False}})
    assert len(definitions) == 2
    assert not [one for one in definitions if "annotations" in one["metadata"]]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "kedge-operator:0.1.0"),
        ({"tag": "ab12cd34ef56"}, "kedge-operator:ab12cd34ef56"),
        ({"tag": "123456789012"}, "kedge-operator:123456789012"),
        ({"repository": "registry.test:5000/ml/kedge", "tag": "v1"}, "registry.test:5000/ml/kedge:v1"),
        ({"tag": "v1", "digest": "sha256:" + "a" * 64}, "kedge-operator@sha256:" + "a" * 64),
    ],
)
def test_the_image_takes_any_tag_or_digest(image: Manifest, reference: str) -> None:
    assert [pod["containers"][0]["image"] for pod in pod_specs({"image": image})] == [reference, reference]


def test_the_operator_gets_its_settings_from_the_environment() -> None:
    values = {
        "modelServer": {"image": {"repository": "ours", "tag": "7"}},
        "log": {"level": "Debug", "format": "Plain"},
        "port": 9090,
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.test"}],
    }

    assert environment(values) == {
        "KEDGE_MODEL_SERVER_IMAGE": "ours:7",
        "KEDGE_WATCH_NAMESPACES": "",
        "KEDGE_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        "KEDGE_POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "KEDGE_LOG_LEVEL": "Debug",
        "KEDGE_LOG_FORMAT": "Plain",
        "KEDGE_PORT": "9090",
        "HTTPS_PROXY": "http://proxy.test",
    }


def test_one_port_serves_probes_metrics_and_the_charts_test() -> None:
    operator, test = pod_specs({"port": 9090})
    (container,) = operator["containers"]

    assert container["ports"] == [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "http"
    }
    assert only("Service", {"port": 9090})["spec"]["ports"][0]["port"] == 9090
    assert test["containers"][0]["command"][-1] == "http://kedge.kedge-system.svc:9090/readyz"


def test_one_replica_is_neither_spread_nor_budgeted() -> None:
    assert of_kind("PodDisruptionBudget") == []
    assert "topologySpreadConstraints" not in next(pod_specs())


def test_several_replicas_are_spread_and_budgeted() -> None:
    deployment = only("Deployment", {"replicas": 3})
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]

    assert [constraint["topologyKey"] for constraint in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    budget = only("PodDisruptionBudget", {"replicas": 3})["spec"]
    assert budget == {"maxUnavailable": 1, "selector": deployment["spec"]["selector"]}


def test_what_selects_the_operator_does_not_select_the_charts_test() -> None:
    selector = only("Service")["spec"]["selector"]

    assert selector.items() <= only("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert not selector.items() <= only("Pod")["metadata"]["labels"].items()


def test_monitoring_is_off_unless_asked_for() -> None:
    kinds = {"NetworkPolicy", "PodMonitor", "PrometheusRule", "ServiceMonitor"}

    assert not kinds & {manifest["kind"] for manifest in rendered()}
    assert kinds <= {manifest["kind"] for manifest in rendered(EVERYTHING_ON)}
    assert only("PodMonitor", EVERYTHING_ON)["metadata"]["labels"]["team"] == "ml"


def test_alerts_speak_of_metrics_that_the_operator_has() -> None:
    (group,) = only("PrometheusRule", EVERYTHING_ON)["spec"]["groups"]
    expressions = [rule["expr"] for rule in group["rules"]]
    known = {sample.name for family in metrics.Metrics().registry.collect() for sample in family.samples}

    assert {name for expression in expressions for name in re.findall(r"kedge_\w+", expression)} <= known
    for expression in expressions:
        assert '{namespace="kedge-system", pod=~"kedge-.+"}' in expression


def test_the_network_policy_leaves_what_the_operator_needs() -> None:
    policy = only("NetworkPolicy", {"networkPolicy": {"enabled": True}, "watchNamespaces": ["team-a"]})["spec"]
    dns, api_server, models = policy["egress"]

    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert [port["port"] for port in api_server["ports"]] == [443, 6443]
    (peer,) = models["to"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kedge-model"}
    assert peer["namespaceSelector"]["matchExpressions"][0]["values"] == ["team-a"]


def test_a_narrowed_network_policy_still_admits_the_charts_test() -> None:
    values = {
        "networkPolicy": {
            "enabled": True,
            "ingressFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "apiServerCIDRs": ["10.0.0.1/32"],
        }
    }
    policy = only("NetworkPolicy", values)["spec"]

    (rule,) = policy["ingress"]
    admitted = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
    assert any(labels.items() <= only("Pod")["metadata"]["labels"].items() for labels in admitted)
    assert policy["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]


def test_pods_go_where_they_are_sent() -> None:
    values: Manifest = {
        "annotations": {"a": "1"},
        "podAnnotations": {"b": "2"},
        "podLabels": {"c": "3"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "terminationGracePeriodSeconds": 60,
        "imagePullSecrets": [{"name": "pull"}],
    }
    deployment = only("Deployment", values)
    pod = deployment["spec"]["template"]

    assert deployment["metadata"]["annotations"] == {"a": "1"}
    assert pod["metadata"]["annotations"]["b"] == "2"
    assert pod["metadata"]["labels"]["c"] == "3"
    for name in values.keys() - {"annotations", "podAnnotations", "podLabels"}:
        assert pod["spec"][name] == values[name]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replicaCount": 2}, "replicaCount"),
        ({"image": {"name": "kedge"}}, "name"),
        ({"modelServer": {"image": {"pullPolicy": "Always"}}}, "pullPolicy"),
        ({"replicas": -1}, "replicas"),
        ({"replicas": "two"}, "replicas"),
        ({"port": 80}, "port"),
        ({"image": {"tag": 12}}, "tag"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"log": {"level": "verbose"}}, "level"),
        ({"watchNamespaces": "team-a"}, "watchNamespaces"),
        ({"watchNamespaces": ["team-a", "team-a"]}, "watchNamespaces"),
        ({"watchNamespaces": ["Team A"]}, "watchNamespaces"),
        ({"serviceMonitor": {"interval": "30"}}, "interval"),
        ({"networkPolicy": {"apiServerPorts": []}}, "apiServerPorts"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"extraEnv": [{"value": "nameless"}]}, "extraEnv"),
    ],
)
def test_a_bad_value_is_refused_by_name(values: Manifest, complaint: str) -> None:
    result = helm("template", "kedge", str(CHART), "--kube-version=1.34.0", values=values)

    assert result.returncode != 0
    assert complaint in result.stderr


@pytest.fixture
def restricted_namespace() -> Iterator[str]:
    """Makes a namespace whose API server says which pods break the restricted standard."""
    name = f"chart-{secrets.token_hex(3)}"
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/warn": "restricted"}},
    }
    created = subprocess.run(
        ["kubectl", "create", "--filename=-"],
        input=json.dumps(namespace),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert created.returncode == 0, created.stderr
    yield name
    subprocess.run(
        ["kubectl", "delete", "namespace", name, "--wait=false"], capture_output=True, timeout=60, check=True
    )


@pytest.mark.parametrize("watched", [False, True])
def test_the_api_server_accepts_every_object_without_a_warning(restricted_namespace: str, watched: bool) -> None:
    values = {
        **EVERYTHING_ON,
        **{name: {"enabled": False} for name in ("podMonitor", "prometheusRule", "serviceMonitor")},
        "crds": {"install": False},
        "watchNamespaces": [restricted_namespace] if watched else [],
    }
    arguments = ("template", "dry", str(CHART), f"--namespace={restricted_namespace}", "--kube-version=1.34.0")
    manifests = helm(*arguments, values=values).stdout

    created = subprocess.run(
        ["kubectl", "create", "--dry-run=server", "--validate=strict", "--filename=-"],
        input=manifests,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (created.returncode, created.stderr) == (0, "")
    assert "deployment.apps/dry-kedge created" in created.stdout


def test_a_parent_chart_may_share_its_globals() -> None:
    assert rendered({"global": {"environment": "test"}})


def test_the_chart_and_the_distribution_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (generate.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)

    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]


def test_every_value_has_a_default_and_a_place_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load(pathlib.Path(CHART / "values.yaml").read_text(encoding="utf-8"))

    assert schema["properties"].keys() - {"global"} == values.keys()
