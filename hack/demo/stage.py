"""Where the demo plays: the cluster's environment, a namespace, the chart, and the artifacts."""

import os
import pathlib

from examples.digits import train
from hack.lab import examples, installing, store
from hack.lab.kubectl import Kubectl
from hack.localcluster import cluster, daemon, paths

NAMESPACE = "kedge-demo"
FOLDER = examples.ROOT / ".local" / "demo"
DELETE_SECONDS = 90


def enter_cluster() -> None:
    """Makes kubectl and helm talk to this checkout's cluster."""
    where = paths.discover(os.environ)
    os.environ.update(cluster.added_environment(where, daemon.find(where), os.environ))


def clear(*, wait: bool) -> None:
    """Removes what a run left, and waits until it is gone if `wait` says so."""
    kubectl = Kubectl(NAMESPACE)
    patience = (f"--timeout={DELETE_SECONDS}s",) if wait else ("--wait=false",)
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", *patience)


def set_up() -> tuple[Kubectl, pathlib.Path]:
    """Installs Kedge, trains the models and stores them; returns kubectl and the folder of manifests."""
    installing.install()
    kubectl = Kubectl(NAMESPACE)
    kubectl.run("create", "namespace", NAMESPACE)
    train.train(FOLDER)
    models = store.Store(kubectl)
    models.open()
    for version in train.VERSIONS:
        models.put(FOLDER / version)
    return kubectl, FOLDER
