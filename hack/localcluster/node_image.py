"""The kind node image, built from source where no image registry answers.

Static files come from kind's own base image, as its Go module carries them; programs from
Go modules; the system from Debian. The system's images are imported into the node's
containerd before the file system is packed, as kind does for its published node images.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil

from hack.localcluster import (
    content,
    docker,
    errors,
    gobuild,
    locks,
    machine,
    oci,
    paths,
    progress,
    rootfs,
    trimming,
)

NODE = pathlib.Path(__file__).parent / "node"
KIND_MODULE = "sigs.k8s.io/kind"
PULLED = "kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "containerd", "runc", "containernetworking-plugins"),
    *("conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod"),
    *("libseccomp2", "pigz", "e2fsprogs", "ca-certificates", "curl", "jq", "procps", "socat"),
)
CHANGES = (
    "ENV container=docker",
    'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]',
)
HINTS = {
    "kubernetes": "about 5 min, cached afterwards",
    "etcd": "about 30 s, cached afterwards",
    "coredns": "about 1 min, cached afterwards",
    "pause": "",
}
NODE_PROGRAMS = ("kubeadm", "kubelet", "kubectl")
IPTABLES = ("iptables", "iptables-save", "iptables-restore")


def key() -> str:
    """Names the image after every file and constant that has a part in it."""
    recipe = [file for file in content.files_below(NODE) if gobuild.MODULES not in file.parents]
    recipe += [pathlib.Path(__file__), pathlib.Path(rootfs.__file__), pathlib.Path(oci.__file__)]
    built = [gobuild.key(module) for module in (*HINTS, "kind")]
    return content.key(NODE.parent, recipe, built)


def reference() -> str:
    return f"kedge-node:{key()}"


def packed(where: paths.Paths) -> pathlib.Path:
    return where.cache / "images" / f"node-{key()}.tar.gz"


def ensure(where: paths.Paths, console: progress.Console, daemon: docker.Docker) -> str:
    """Returns the reference of the built node image, making what is missing of it."""
    if daemon.has_image(reference()):
        return reference()
    with locks.held(where.cache / "node-image.lock", announce=console.say):
        if not packed(where).is_file():
            _build(where, console)
        with console.step("loading the node image into Docker"):
            rootfs.load(console, daemon, packed(where), reference(), CHANGES)
        trimming.files(packed(where))
        trimming.images(daemon, reference())
    return reference()


def _build(where: paths.Paths, console: progress.Console) -> None:
    machine.require_space(where.cache)
    programs = [
        file for module, hint in HINTS.items() for file in gobuild.build(where, console, module, hint).iterdir()
    ]
    by_name = {file.name: file for file in programs}
    with locks.scratch_folder(where.cache / "node") as temporary:
        root = temporary / "root"
        with console.step("installing the node's Debian system", "about 1 min"):
            rootfs.bootstrap(where, console, root, PACKAGES)
        with console.step("assembling the node image"):
            _copy_static_files(gobuild.sources(where, console, "kind", KIND_MODULE), root)
            for name in NODE_PROGRAMS:
                shutil.copy(by_name[name], root / "usr/bin" / name)
            _configure(root)
            _import_system_images(console, root, by_name, temporary)
            rootfs.archive(console, root, packed(where))


def _copy_static_files(kind: pathlib.Path, root: pathlib.Path) -> None:
    """Installs kind's files: scripts executable, all else plain, whatever the module cache says."""
    source = kind / "images" / "base" / "files"
    for file in content.files_below(source):
        name = file.relative_to(source)
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        is_script = str(name.parent) in ("usr/local/bin", "kind/bin")
        target.chmod(0o755 if is_script else 0o644)
    for added, place in (
        ("cni/10-kedge.conflist", "etc/cni/net.d/10-kedge.conflist"),
        ("manifests/default-cni.yaml", "kind/manifests/default-cni.yaml"),
        ("manifests/default-storage.yaml", "kind/manifests/default-storage.yaml"),
    ):
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(NODE / added, target)
    (root / "kind" / "version").write_text(gobuild.KUBERNETES)


def _configure(root: pathlib.Path) -> None:
    """Turns Debian's services off and kind's on, and settles what Debian places elsewhere."""
    system = root / "lib/systemd/system"
    (system / "sysinit.target.wants/systemd-tmpfiles-setup.service").unlink(missing_ok=True)
    for pattern in (
        "multi-user.target.wants/*",
        "local-fs.target.wants/*",
        "sockets.target.wants/*udev*",
        "sockets.target.wants/*initctl*",
        "basic.target.wants/*",
    ):
        for unit in system.glob(pattern):
            unit.unlink()
    for unit in (root / "etc/systemd/system").glob("*.wants/*"):
        unit.unlink()
    with (root / "etc/systemd/journald.conf").open("a") as journald:
        journald.write("ReadKMsg=no\n")
    (root / "usr/local/bin/containerd").symlink_to("/usr/bin/containerd")
    (root / "opt/cni").mkdir(parents=True)
    (root / "opt/cni/bin").symlink_to("/usr/lib/cni")
    (root / "etc/kubernetes/manifests").mkdir(parents=True)
    for service in ("kubelet", "containerd", "undo-mount-hacks"):
        rootfs.execute(root, "systemctl", "enable", f"{service}.service")
    rootfs.execute(root, "systemctl", "mask", "systemd-binfmt.service")

    # Lowering a process' OOM score needs CAP_SYS_RESOURCE, which not every machine can give.
    config = root / "etc/containerd/config.toml"
    text = config.read_text()
    config.write_text(text.replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true"))

    specification = json.loads(rootfs.execute(root, "ctr", "oci", "spec"))
    specification["process"].pop("rlimits", None)
    hooks = specification.setdefault("hooks", {}).setdefault("createContainer", [])
    hooks.append({"path": "/kind/bin/mount-product-files.sh"})
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(specification))


def sandbox_image(containerd_config: str) -> str:
    found = re.search(r'^\s*sandbox_image = "([^"]+)"', containerd_config, re.MULTILINE)
    if found is None:
        raise errors.LocalClusterError("kind's containerd configuration names no sandbox image.")
    return found[1]


def system_images(
    required: list[str],
    pause_reference: str,
    programs: dict[str, pathlib.Path],
    iptables: dict[str, pathlib.Path],
) -> list[oci.Image]:
    """One image a component, under the names that kubeadm will ask for."""
    images = [oci.Image(pause_reference, {"pause": programs["pause"]}, ("/pause",))]
    for wanted in required:
        name = wanted.rpartition(":")[0].rpartition("/")[2]
        if name == "pause":
            continue
        if name == "coredns":
            images.append(oci.Image(wanted, {"coredns": programs[name]}, ("/coredns",)))
        elif name == "kube-proxy":
            files = {**iptables, f"usr/local/bin/{name}": programs[name]}
            links = {
                f"usr/sbin/{program.replace('ip', family, 1)}": "xtables-nft-multi"
                for program in IPTABLES
                for family in ("ip", "ip6")
            }
            images.append(oci.Image(wanted, files, links=links))
        else:
            images.append(oci.Image(wanted, {f"usr/local/bin/{name}": programs[name]}))
    return images


def _iptables_files(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The iptables program with its extensions and every library that any of them loads."""
    extensions = [f"/{found.relative_to(root)}" for found in root.glob("usr/lib/*/xtables/*.so")]
    programs = ["/usr/sbin/xtables-nft-multi", *extensions]
    said = rootfs.execute(root, "ldd", *programs)
    names = {*programs, *re.findall(r"(/\S+) \(0x", said)}
    return {name.lstrip("/"): (root / name.lstrip("/")).resolve() for name in sorted(names)}


def _import_system_images(
    console: progress.Console,
    root: pathlib.Path,
    programs: dict[str, pathlib.Path],
    scratch: pathlib.Path,
) -> None:
    listed = rootfs.execute(root, "kubeadm", "config", "images", "list", f"--kubernetes-version={gobuild.KUBERNETES}")
    pause = sandbox_image((root / "etc/containerd/config.toml").read_text())
    architecture = rootfs.execute(root, "dpkg", "--print-architecture").strip()
    images = system_images(listed.split(), pause, programs, _iptables_files(root))
    bundle = root / "system-images.tar"
    oci.write(bundle, images, architecture, scratch)
    console.run([*rootfs.ISOLATED, "sh", NODE / "import-images.sh", root, f"/{bundle.name}"])
    bundle.unlink()
    known = console.log.read_text(errors="replace")
    missing = [image.reference for image in images if image.reference not in known]
    if missing:
        raise errors.LocalClusterError(f"containerd did not take {', '.join(missing)}.")
