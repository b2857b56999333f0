"""The pods of a revision: its Deployment, and the disruption budget of all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from kedge.api import schemas, servers
from kedge.desired import names, sources
from kedge.desired.names import Owner
from kedge.desired.revisions import Revision

DRAIN_SECONDS = 5
"""How long a server goes on accepting after SIGTERM: longer than a Service takes to forget the pod."""
TERMINATION_GRACE_SECONDS = 60
"""Drain, then the longest request, then what the process needs to end."""
USER = 65532
LATENCY_EDGES_ANNOTATION = f"{schemas.GROUP}/latency-edges-milliseconds"

_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def deployment(
    owner: Owner, revision: Revision, replicas: int, *, latency_edges_milliseconds: Sequence[int]
) -> dict[str, Any]:
    """Returns the Deployment of a revision with so many replicas.

    `latency_edges_milliseconds` are the edges that the latency histogram must have. They come from the
    objectives of the day on which the pods started, and stay as they are for as long as pods run: changing an
    objective restarts nothing.
    """
    selector = names.selector_labels(owner, revision.hash)
    metadata = names.metadata(owner, names.workload_name(owner, revision.hash), revision.hash)
    edges = {LATENCY_EDGES_ANNOTATION: ",".join(str(edge) for edge in latency_edges_milliseconds)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata | {"annotations": edges},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": names.labels(owner, revision.hash)},
                "spec": _pod_spec(owner, revision, latency_edges_milliseconds),
            },
        },
    }


def disruption_budget(owner: Owner) -> dict[str, Any]:
    """Returns the budget that lets nodes be drained one pod of the model at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(owner, owner.name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": names.selector_labels(owner)}},
    }


def latency_edges(deployment: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the histogram edges with which the pods of a Deployment of Kedge were started."""
    written = (deployment["metadata"].get("annotations") or {}).get(LATENCY_EDGES_ANNOTATION, "")
    return tuple(int(edge) for edge in written.split(",") if edge)


def _pod_spec(owner: Owner, revision: Revision, latency_edges_milliseconds: Sequence[int]) -> dict[str, Any]:
    server = revision.server
    source = sources.of(revision)
    spec: dict[str, Any] = {
        "automountServiceAccountToken": server.service_account_name is not None,
        "containers": [_server_container(owner, revision, source, latency_edges_milliseconds)],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": names.selector_labels(owner, revision.hash)},
            }
        ],
    }
    if source.volume is not None:
        spec["volumes"] = [{"name": sources.MODEL_VOLUME, **source.volume}]
    if source.fetched:
        spec["initContainers"] = [_fetch_container(revision, source)]
    declared = {
        "serviceAccountName": server.service_account_name,
        "nodeSelector": server.node_selector,
        "tolerations": [toleration.to_json() for toleration in server.tolerations],
        "imagePullSecrets": [secret.to_json() for secret in server.image_pull_secrets],
    }
    return spec | {key: value for key, value in declared.items() if value}


def _server_container(
    owner: Owner, revision: Revision, source: sources.Source, latency_edges_milliseconds: Sequence[int]
) -> dict[str, Any]:
    arguments = ["serve", "--model-name", owner.name, "--model-version", revision.hash, "--model-path", source.path]
    if revision.model.sha256:
        arguments += ["--sha256", revision.model.sha256]
    if revision.server.compile is not servers.Compile.OFF:
        arguments += ["--compile", revision.server.compile]
    for edge in latency_edges_milliseconds:
        arguments += ["--latency-threshold-ms", str(edge)]
    arguments += ["--port", str(names.HTTP_PORT), "--drain-seconds", str(DRAIN_SECONDS)]
    return {
        "name": names.SERVER_CONTAINER,
        **_image(revision),
        "args": arguments,
        "ports": [{"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"}],
        "env": [variable.to_json() for variable in revision.server.env],
        "resources": _resources(revision),
        "volumeMounts": sources.mount(source, read_only=True),
        "securityContext": _RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Loading a large model takes as long as it takes: only the rollout's own deadline ends it.
        "startupProbe": _probe("/v2/health/live", period=1, failures=600, timeout=5),
        "livenessProbe": _probe("/v2/health/live", period=10, failures=6, timeout=5),
        "readinessProbe": _probe("/v2/health/ready", period=2, failures=3, timeout=5),
    }


def _fetch_container(revision: Revision, source: sources.Source) -> dict[str, Any]:
    return {
        "name": names.FETCH_CONTAINER,
        **_image(revision),
        "args": sources.fetch_arguments(revision, source),
        **sources.credentials(revision),
        "resources": _resources(revision),
        "volumeMounts": sources.mount(source, read_only=False),
        "securityContext": _RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _image(revision: Revision) -> dict[str, str]:
    image = {"image": revision.image}
    if revision.server.image_pull_policy is not None:
        image["imagePullPolicy"] = revision.server.image_pull_policy
    return image


def _resources(revision: Revision) -> dict[str, Any]:
    return revision.server.resources.to_json() if revision.server.resources is not None else {}


def _probe(path: str, *, period: int, failures: int, timeout: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }
