"""The kind cluster of this checkout: created, recognised, waited for, deleted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import queue
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import IO

from hack.localcluster import (
    docker,
    errors,
    ledger,
    locks,
    machine,
    node_image,
    paths,
    progress,
)

PREFIX = "kedge-"
NETWORK = "kind"
ANSWER_SECONDS = 4.0
READY_SECONDS = 180
SERVE_SECONDS = 60
INTERVAL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Record:
    """What the cluster was made of; another one is made when this changes."""

    node_image: str
    configuration: str

    @property
    def is_built(self) -> bool:
        """Whether the node image came from this machine, since no registry answered."""
        return self.node_image != node_image.PULLED

    def write(self, where: paths.Paths) -> None:
        """Keeps the record in the checkout."""
        locks.write_text(where.cluster_record, json.dumps(dataclasses.asdict(self)) + "\n")


def read_record(where: paths.Paths) -> Record | None:
    try:
        return Record(**json.loads(where.cluster_record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def configuration_file(where: paths.Paths) -> pathlib.Path:
    return where.checkout / "kind-config.yaml"


def configuration_key(where: paths.Paths) -> str:
    return hashlib.sha256(configuration_file(where).read_bytes()).hexdigest()


def added_environment(where: paths.Paths, daemon: docker.Docker | None, base: Mapping[str, str]) -> dict[str, str]:
    """The variables that make this cluster what kubectl, helm and kind talk to."""
    own = machine.path_without(where.bin, base)
    added = {"KUBECONFIG": str(where.kubeconfig), "PATH": f"{where.bin}{os.pathsep}{own}"}
    if daemon is not None and daemon.is_own and daemon.host is not None:
        added[docker.HOST_VARIABLE] = daemon.host
    return added


def environment(where: paths.Paths, daemon: docker.Docker | None) -> dict[str, str]:
    return {**os.environ, **added_environment(where, daemon, os.environ)}


def remove(where: paths.Paths, daemon: docker.Docker, console: progress.Console) -> None:
    """Deletes this checkout's cluster, which is one container with its volumes.

    Needs no kind, so that it also works after a set-up that never came so far.
    """
    if daemon.has_container(where.node_name):
        with console.step(f"deleting the cluster {where.cluster_name}"):
            daemon.run(console, "rm", "--force", "--volumes", where.node_name)
    for left in (where.kubeconfig, where.cluster_record, where.image_record):
        left.unlink(missing_ok=True)


class Cluster:
    """Runs kind and kubectl for one checkout."""

    def __init__(self, where: paths.Paths, console: progress.Console, daemon: docker.Docker) -> None:
        self._where = where
        self._console = console
        self._daemon = daemon
        self.environment = environment(where, daemon)

    def exists(self) -> bool:
        """Whether there is a node, in whatever state."""
        return self._daemon.has_container(self._where.node_name)

    def is_running(self) -> bool:
        """Whether the node's container runs."""
        return self._daemon.is_running(self._where.node_name)

    def kubectl(self, *words: str, timeout_seconds: float = 20) -> str | None:
        """What kubectl printed, or None when it failed."""
        return progress.output_of(["kubectl", *words], environment=self.environment, timeout_seconds=timeout_seconds)

    def is_ready(self) -> bool:
        """Whether the node is Ready and the cluster's DNS is served."""
        node = self.kubectl(
            *("get", "node", self._where.node_name, "--request-timeout=5s"),
            *("-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"),
        )
        if node != "True":
            return False
        ready = self.kubectl(
            *("-n", "kube-system", "get", "deployment", "coredns", "--request-timeout=5s"),
            *("-o", "jsonpath={.status.conditions[?(@.type=='Available')].status}"),
        )
        return ready == "True"

    def wait_ready(self, seconds: float) -> bool:
        """Waits until the cluster is ready; returns False when time is up or the node ended."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if time.monotonic() > deadline or not self.is_running():
                return False
            time.sleep(INTERVAL_SECONDS)
        return True

    def write_kubeconfig(self) -> None:
        """Writes the kubeconfig anew: the API server's port changes when Docker restarts it."""
        self._kind("export", "kubeconfig")

    def create(self, image: str) -> None:
        """Creates the cluster and waits until it can be used.

        Raises:
            errors.LocalClusterError: it did not become ready; its container is kept to look at.
        """
        with self._console.step("creating the kind cluster", "about 40 s"):
            if self._daemon.output("network", "inspect", NETWORK) is None:
                ledger.note(self._where, ledger.NETWORK, [NETWORK])
            words = ("--image", image, "--config", str(configuration_file(self._where)))
            self._kind("create", "cluster", *words, "--retain")
            Record(image, configuration_key(self._where)).write(self._where)
            if not self.wait_ready(READY_SECONDS):
                self._log_state()
                said = progress.last_lines(self._console.log.read_text(errors="replace"))
                raise errors.LocalClusterError(
                    f"the cluster was not ready after {READY_SECONDS} s; the end of {self._console.log}:\n{said}"
                )

    def _kind(self, *words: str) -> None:
        self._console.run(
            [
                "kind",
                *words,
                f"--name={self._where.cluster_name}",
                f"--kubeconfig={self._where.kubeconfig}",
            ],
            environment=self.environment,
        )

    def _log_state(self) -> None:
        for words in (
            ("kubectl", "get", "pods", "--all-namespaces", "-o", "wide"),
            ("kubectl", "get", "events", "--all-namespaces", "--field-selector=type=Warning"),
        ):
            try:
                self._console.run(words, environment=self.environment, timeout_seconds=20)
            except errors.CommandError:
                continue


def choose_image(where: paths.Paths, console: progress.Console, daemon: docker.Docker, facts: machine.Facts) -> str:
    """The node image to use: one that Docker has, else a pulled one, else one built here."""
    if daemon.has_image(node_image.reference()):
        return node_image.reference()
    if daemon.has_image(node_image.PULLED):
        return node_image.PULLED
    if _pull(console, daemon, node_image.PULLED):
        ledger.note(where, ledger.IMAGE, [node_image.PULLED])
        return node_image.PULLED
    machine.require_build(facts)
    console.say("no image registry answers: the node image is built from source")
    return node_image.ensure(where, console, daemon)


def _pull(console: progress.Console, daemon: docker.Docker, image: str) -> bool:
    """Pulls an image, giving up when the registry has not answered within a few seconds."""
    process = subprocess.Popen(
        daemon.command("pull", image),
        env=daemon.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True)
    reader.start()
    deadline = time.monotonic() + ANSWER_SECONDS
    try:
        while not answers_pull(line := lines.get(timeout=max(0.0, deadline - time.monotonic()))):
            if line is None:
                return False
        with console.step("pulling the node image"), console.log.open("a") as log:
            while (line := lines.get()) is not None:
                log.write(line)
        return process.wait() == 0
    except queue.Empty:
        return False
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def answers_pull(line: str | None) -> bool:
    """Whether a line of `docker pull` shows that the registry knows the image."""
    return line is not None and "Pulling from" in line


def _forward(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
