"""Runs kubectl as a user does. KUBECONFIG and PATH come from the environment."""

import dataclasses
import json
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from hack.lab import errors

Manifest = Mapping[str, Any]

TIMEOUT_SECONDS = 90.0
"""For one command: an API server that is slower than this is broken."""


@dataclasses.dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str

    def command(self, *words: str) -> list[str]:
        """Returns the command line, for whoever starts it in another way."""
        return ["kubectl", f"--namespace={self.namespace}", *words]

    def attempt(self, *words: str, stdin: str | bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Runs it and returns what it said, also when it failed."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            self.command(*words), input=given, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def run(self, *words: str, stdin: str | bytes | None = None) -> str:
        """Runs it and returns its output.

        Raises:
            LabError: It failed.
        """
        done = self.attempt(*words, stdin=stdin)
        if done.returncode:
            raise errors.LabError(f"kubectl {' '.join(words)} failed: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest) -> str:
        """Applies manifests as `kubectl apply` does and returns what it printed."""
        return self.run("apply", "--filename=-", stdin=as_list(manifests))

    def get(self, *words: str) -> Any:
        """Returns what `kubectl get` prints as JSON."""
        return json.loads(self.run("get", *words, "--output=json"))

    def items(self, *words: str) -> list[dict[str, Any]]:
        """Returns the objects of a list."""
        found: list[dict[str, Any]] = self.get(*words)["items"]
        return found


def as_list(manifests: Iterable[Manifest]) -> str:
    """Returns manifests as one document."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
