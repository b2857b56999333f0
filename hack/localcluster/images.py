"""Kedge's own two images: built when their content is new, and loaded into the node.

A tag is the hash of everything that its Dockerfile copies, so that an image which is
there already need not be looked into.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import tarfile
import tempfile

from hack.localcluster import base_image, cluster, content, docker, locks, paths, progress

# Arguments that every Dockerfile has without declaring them; Docker keeps them out of the image.
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
NODE_PREFIX = "docker.io/library/"
LIST_NODE_IMAGES = ("ctr", "--namespace=k8s.io", "images", "list")
CHECKOUT_LABEL = "dev.kedge.checkout"


@dataclasses.dataclass(frozen=True)
class Source:
    """What one image is built from."""

    repository: str
    dockerfile: str
    record: str


SOURCES = (
    Source("kedge-operator", "operator/Dockerfile", "operator"),
    Source("kedge-model-server", "model_server/Dockerfile", "modelServer"),
)


def instructions(dockerfile: str) -> list[list[str]]:
    """A Dockerfile's instructions as words, with continued lines joined and comments gone."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [line.split() for line in joined.splitlines() if line.strip()]


def copied(dockerfile: str) -> list[str]:
    """The paths and patterns that a Dockerfile copies out of its build context."""
    found: list[str] = []
    for name, *words in instructions(dockerfile):
        if name.upper() not in ("COPY", "ADD") or any(w.startswith("--from=") for w in words):
            continue
        plain = [word for word in words if not word.startswith("--")]
        if plain and plain[0].startswith("["):
            plain = json.loads(" ".join(plain))
        found += plain[:-1]
    return found


def stages(dockerfile: str) -> list[str]:
    """The names of the stages before the last one."""
    named = [words for words in instructions(dockerfile) if words[0].upper() == "FROM"]
    return [words[3] for words in named[:-1] if len(words) > 3 and words[2].upper() == "AS"]


def defining_files(checkout: pathlib.Path, dockerfile: pathlib.Path) -> list[pathlib.Path]:
    """Every file that decides what an image holds: the Dockerfile and what it copies."""
    files = [dockerfile]
    ignore = checkout / ".dockerignore"
    if ignore.is_file():
        files.append(ignore)
    for pattern in copied(dockerfile.read_text()):
        for match in sorted(checkout.glob(pattern.strip("/").removeprefix("./") or "*")):
            files += content.files_below(match)
    return files


def tag(checkout: pathlib.Path, source: Source, base: str) -> str:
    files = defining_files(checkout, checkout / source.dockerfile)
    return content.key(checkout, files, [base])


def ensure(where: paths.Paths, console: progress.Console, daemon: docker.Docker) -> dict[str, str]:
    """Builds and loads what is missing, and returns the references by their record names."""
    record = cluster.read_record(where)
    is_built = record is not None and record.is_built
    base = base_image.ensure(where, console, daemon) if is_built else ""
    references: dict[str, str] = {}
    for source in SOURCES:
        reference = f"{source.repository}:{tag(where.checkout, source, base)}"
        if not daemon.has_image(reference):
            with console.step(f"building the image {reference}"):
                _build(where, console, daemon, source=source, reference=reference, base=base)
        references[source.record] = reference
    if _load(where, console, daemon, list(references.values())):
        _remove_old_from_node(where, daemon, {*references.values(), *_recorded(where)})
    _remove_old(where, daemon, set(references.values()))
    locks.write_text(where.image_record, json.dumps(references, indent=2) + "\n")
    return references


def write_context(target: pathlib.Path, root: pathlib.Path, files: list[pathlib.Path]) -> None:
    """Packs a build context of just those files, so that nothing else in a work tree counts."""
    with tarfile.open(target, "w") as context:
        for file in sorted(set(files)):
            entry = tarfile.TarInfo(file.relative_to(root).as_posix())
            entry.size = file.stat().st_size
            entry.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            with file.open("rb") as opened:
                context.addfile(entry, opened)


def _build(
    where: paths.Paths,
    console: progress.Console,
    daemon: docker.Docker,
    *,
    source: Source,
    reference: str,
    base: str,
) -> None:
    """Builds an image.

    Where the base image or the daemon is our own, Docker's classic builder is used, on the
    host's network: it sees the daemon's images, and that daemon has no network of its own.
    That builder forgets an earlier stage when its image is cleaned up, so each gets a name.
    """
    dockerfile = where.checkout / source.dockerfile
    words = [f"--file={source.dockerfile}", f"--label={CHECKOUT_LABEL}={where.cluster_name}"]
    words += [f"--build-arg=BASE_IMAGE={base}"] if base else []
    words += [f"--build-arg={name}" for name in PROXY_VARIABLES if os.environ.get(name)]
    goals = [[f"--tag={reference}"]]
    if base or daemon.is_own:
        daemon = dataclasses.replace(daemon, classic_builder=True)
        words.append("--network=host")
        name, _, version = reference.partition(":")
        earlier = stages(dockerfile.read_text())
        goals = [[f"--target={stage}", f"--tag={name}-{stage}:{version}"] for stage in earlier] + goals
    elif daemon.output("buildx", "version") is not None:
        words.append("--load")
    with tempfile.TemporaryDirectory() as temporary:
        context = pathlib.Path(temporary) / "context.tar"
        write_context(context, where.checkout, defining_files(where.checkout, dockerfile))
        for goal in goals:
            daemon.run(console, "build", *words, *goal, "-", standard_input=context)


def _load(where: paths.Paths, console: progress.Console, daemon: docker.Docker, references: list[str]) -> bool:
    """Loads what the node lacks, and returns whether there was any."""
    missing = [reference for reference in references if not in_node(where, daemon, reference)]
    if missing:
        with console.step(f"loading {' and '.join(missing)} into the node"):
            environment = cluster.environment(where, daemon)
            load = ["kind", "load", "docker-image", f"--name={where.cluster_name}"]
            console.run([*load, *missing], environment=environment)
    return bool(missing)


def in_node(where: paths.Paths, daemon: docker.Docker, reference: str) -> bool:
    name = f"{NODE_PREFIX}{reference}"
    return name in daemon.lines("exec", where.node_name, *LIST_NODE_IMAGES, "--quiet", f"name=={name}")


def _recorded(where: paths.Paths) -> list[str]:
    """The images that were current until now: a test that has begun may be about to use them."""
    try:
        return list(json.loads(where.image_record.read_text()).values())
    except (OSError, ValueError):
        return []


def _remove_old_from_node(where: paths.Paths, daemon: docker.Docker, kept: set[str]) -> None:
    """Frees the node's disk of earlier images that nothing on the cluster refers to."""
    kubectl = ["kubectl", "get", "pods,deployments", "--all-namespaces", "--output=json", "--request-timeout=20s"]
    objects = progress.output_of(kubectl, environment=cluster.environment(where, daemon))
    listing = daemon.output("exec", where.node_name, *LIST_NODE_IMAGES)
    if objects is None or listing is None:
        return
    used = set(re.findall(r'"image": "([^"]+)"', objects))
    old = superseded(listing, {reference.removeprefix(NODE_PREFIX) for reference in kept | used})
    if old:
        remove = ("ctr", "--namespace=k8s.io", "images", "remove", "--sync")
        daemon.output("exec", where.node_name, *remove, *old, timeout_seconds=120)


def superseded(listing: str, kept: set[str]) -> list[str]:
    """The names to remove, out of what `ctr images list` prints, so that only these are kept.

    An image has several names, of the same digest, and is there until the last one is gone.
    """
    digests: dict[str, str] = {}
    for line in listing.splitlines()[1:]:
        words = line.split()
        digests[words[0]] = words[2]
    ours = tuple(f"{NODE_PREFIX}{source.repository}:" for source in SOURCES)
    wanted = {digests[f"{NODE_PREFIX}{name}"] for name in kept if f"{NODE_PREFIX}{name}" in digests}
    unwanted = {digest for name, digest in digests.items() if name.startswith(ours)} - wanted
    return [name for name, digest in digests.items() if digest in unwanted]


def _remove_old(where: paths.Paths, daemon: docker.Docker, current: set[str]) -> None:
    """Frees the disk of this checkout's earlier images; what the new ones share stays."""
    versions = {reference.partition(":")[2] for reference in current}
    listed = daemon.lines(
        *("images", "--format", "{{.Repository}}:{{.Tag}}"),
        *("--filter", f"label={CHECKOUT_LABEL}={where.cluster_name}"),
    )
    old = [name for name in listed if name.partition(":")[2] not in {*versions, "<none>"}]
    if old:
        daemon.output("rmi", *old)
