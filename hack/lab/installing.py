"""Installs the chart with Helm, as an administrator does."""

import json
import pathlib
import subprocess

from hack.lab import errors, examples
from hack.lab.kubectl import Kubectl

RELEASE = "kedge"
NAMESPACE = "kedge-system"
DEPLOYMENT = "deployment/kedge"
CHART = examples.ROOT / "charts" / "kedge"
TIMEOUT_SECONDS = 180


def install() -> None:
    """Installs or upgrades the release and waits until the operator is ready."""
    _clear_interrupted()
    images = examples.images()
    settings = []
    for value, reference in (("image", images["operator"]), ("modelServer.image", images["modelServer"])):
        repository, _, tag = reference.partition(":")
        settings += [f"--set-string={value}.repository={repository}", f"--set-string={value}.tag={tag}"]
    _helm(
        *("upgrade", RELEASE, str(CHART), "--install", "--create-namespace", "--take-ownership"),
        *("--wait", f"--timeout={TIMEOUT_SECONDS}s", *settings),
    )


def uninstall() -> None:
    """Removes the release; the definition of ModelDeployment stays, as its chart says."""
    _helm("uninstall", RELEASE, "--ignore-not-found", "--wait", f"--timeout={TIMEOUT_SECONDS}s")


def operator() -> Kubectl:
    """Returns kubectl in the operator's namespace."""
    return Kubectl(NAMESPACE)


def _clear_interrupted() -> None:
    """Removes a release whose installation was killed half-way: Helm would refuse to touch it."""
    done = subprocess.run(
        ["helm", "status", RELEASE, f"--namespace={NAMESPACE}", "--output=json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 and json.loads(done.stdout)["info"]["status"] not in {"deployed", "failed"}:
        uninstall()


def _helm(*words: str) -> str:
    done = subprocess.run(
        ["helm", *words, f"--namespace={NAMESPACE}"],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(examples.ROOT),
        timeout=TIMEOUT_SECONDS + 30,
        check=False,
    )
    if done.returncode:
        raise errors.LabError(f"helm {words[0]} failed: {done.stderr.strip()}")
    return done.stdout
