"""Where things are kept: one place decides it, so that two checkouts never collide.

What belongs to a checkout lies in its `.local/`. What is costly to make lies in the
user's cache directory and is shared by all checkouts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

CLUSTER_VARIABLE = "KEDGE_CLUSTER"


@dataclasses.dataclass(frozen=True)
class Paths:
    """The folders and names of one checkout on one machine."""

    checkout: pathlib.Path
    cache: pathlib.Path
    cluster_name: str

    @property
    def state(self) -> pathlib.Path:
        """The checkout's own folder, which git ignores."""
        return self.checkout / ".local"

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The only kubeconfig that is ever written; the user's own is left alone."""
        return self.state / "kubeconfig"

    @property
    def cluster_record(self) -> pathlib.Path:
        """What the running cluster was made of."""
        return self.state / "cluster.json"

    @property
    def image_record(self) -> pathlib.Path:
        """The references of Kedge's images in the node, for the chart and the tests."""
        return self.state / "images.json"

    @property
    def bin(self) -> pathlib.Path:
        """Links to the tools that PATH does not offer."""
        return self.state / "bin"

    @property
    def logs(self) -> pathlib.Path:
        """What the children of the last run of each command printed."""
        return self.state / "log"

    @property
    def node_name(self) -> str:
        """The name that kind gives to the one node and its container."""
        return f"{self.cluster_name}-control-plane"

    @property
    def runtime(self) -> pathlib.Path:
        """The run directory of our own Docker daemon.

        Short, because a Unix socket's path ends at 107 characters, and named after the
        cache, because the daemon is shared by exactly the checkouts that share the cache.
        """
        return pathlib.Path("/run/kedge") / short_hash(str(self.cache), 8)


def short_hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def cluster_name(checkout: pathlib.Path, environment: Mapping[str, str]) -> str:
    """Names the cluster after the checkout's path, unless the environment names it."""
    return environment.get(CLUSTER_VARIABLE) or f"kedge-{short_hash(str(checkout), 6)}"


def cache_root(environment: Mapping[str, str]) -> pathlib.Path:
    """The cache, where the XDG base directory specification puts it; it ignores relative paths."""
    base = pathlib.Path(environment.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = pathlib.Path(environment.get("HOME") or pathlib.Path.home()) / ".cache"
    return base / "kedge"


def discover(environment: Mapping[str, str]) -> Paths:
    checkout = pathlib.Path(__file__).resolve().parents[2]
    return Paths(
        checkout=checkout,
        cache=cache_root(environment),
        cluster_name=cluster_name(checkout, environment),
    )
