"""The Python base image of Kedge's own images, where `python:3.11-slim-bookworm` cannot be pulled.

It is Debian's Python of the same minor version. Where the machine trusts more certificates
than Debian does, as behind a proxy that ends TLS, the image trusts them too: pip could not
reach its index otherwise.
"""

from __future__ import annotations

import hashlib
import pathlib

from hack.localcluster import content, docker, locks, machine, paths, progress, rootfs, trimming

PACKAGES = ("python3", "python3-venv", "ca-certificates")
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
CHANGES = (
    f"ENV PIP_CERT=/{CERTIFICATES} SSL_CERT_FILE=/{CERTIFICATES}",
    'CMD ["python3"]',
)


def host_certificates() -> bytes:
    return rootfs.HOST_CERTIFICATES.read_bytes() if rootfs.HOST_CERTIFICATES.is_file() else b""


def key() -> str:
    here = pathlib.Path(__file__)
    recipe = [here, pathlib.Path(rootfs.__file__)]
    return content.key(here.parent, recipe, [hashlib.sha256(host_certificates()).hexdigest()])


def reference() -> str:
    return f"kedge-base:{key()}"


def packed(where: paths.Paths) -> pathlib.Path:
    return where.cache / "images" / f"base-{key()}.tar.gz"


def ensure(where: paths.Paths, console: progress.Console, daemon: docker.Docker) -> str:
    """Returns the reference of the base image, making what is missing of it."""
    if daemon.has_image(reference()):
        return reference()
    with locks.held(where.cache / "base-image.lock", announce=console.say):
        if not packed(where).is_file():
            machine.require_space(where.cache)
            with console.step("making a Python base image", "about 40 s, cached afterwards"):
                _build(where, console)
        rootfs.load(console, daemon, packed(where), reference(), CHANGES)
        trimming.files(packed(where))
        trimming.images(daemon, reference())
    return reference()


def _build(where: paths.Paths, console: progress.Console) -> None:
    with locks.scratch_folder(where.cache / "base") as temporary:
        root = temporary / "root"
        rootfs.bootstrap(where, console, root, PACKAGES)
        if certificates := host_certificates():
            (root / CERTIFICATES).write_bytes(certificates)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        rootfs.archive(console, root, packed(where))
