"""Container images of a few files each, written without a daemon.

The format is the OCI image layout in one tar archive, which containerd imports. See the
OCI image specification, "Image Layout Specification".
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
import tarfile
from collections.abc import Iterable, Mapping

NAME_ANNOTATION = "io.containerd.image.name"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclasses.dataclass(frozen=True)
class Image:
    """One image: files by their path in it, symbolic links, and what it runs."""

    reference: str
    files: Mapping[str, pathlib.Path]
    entrypoint: tuple[str, ...] = ()
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write(target: pathlib.Path, images: Iterable[Image], architecture: str, scratch: pathlib.Path) -> None:
    """Writes the images as one archive; layers pass through the scratch folder."""
    manifests = []
    with tarfile.open(target, "w") as archive:
        _add_bytes(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        for image in images:
            layer = scratch / "layer.tar"
            _write_layer(layer, image)
            layer_blob = _add_file_blob(archive, layer, LAYER)
            config = _config(image, architecture, layer_blob["digest"])
            config_blob = _add_blob(archive, _json(config), CONFIG)
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config_blob,
                "layers": [layer_blob],
            }
            described = _add_blob(archive, _json(manifest), MANIFEST)
            manifests.append({**described, "annotations": {NAME_ANNOTATION: image.reference}})
            layer.unlink()
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        _add_bytes(archive, "index.json", _json(index))


def _config(image: Image, architecture: str, layer_digest: object) -> dict[str, object]:
    process: dict[str, object] = {"Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    if image.entrypoint:
        process["Entrypoint"] = list(image.entrypoint)
    return {
        "architecture": architecture,
        "os": "linux",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }


def _write_layer(target: pathlib.Path, image: Image) -> None:
    """Writes a layer whose bytes depend on nothing but the files' contents and modes."""
    with tarfile.open(target, "w") as layer:
        for name in _folders([*image.files, *image.links]):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(folder)
        for name, source in sorted(image.files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = source.stat().st_size
            entry.mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
            with source.open("rb") as file:
                layer.addfile(entry, file)
        for name, destination in sorted(image.links.items()):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, destination
            layer.addfile(link)


def _folders(names: Iterable[str]) -> list[str]:
    """Every folder above those paths, parents first."""
    parents = {str(parent) for name in names for parent in pathlib.PurePosixPath(name).parents}
    return sorted(parents - {"."})


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _add_blob(archive: tarfile.TarFile, data: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    _add_bytes(archive, f"blobs/sha256/{digest}", data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _add_file_blob(archive: tarfile.TarFile, path: pathlib.Path, media_type: str) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = tarfile.TarInfo(f"blobs/sha256/{digest}")
    entry.size = path.stat().st_size
    with path.open("rb") as file:
        archive.addfile(entry, file)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": entry.size}
