"""Builds layers and images from short descriptions; everything stays in memory.

`file("etc/motd", b"hi")` and its siblings make entries, `layer(...)` makes a blob of them,
`image(...)` a manifest with its config, `index(...)` a choice of images. What comes out can be
pushed (`tests.support.registry.Registry.push`) or written as an OCI layout (`write_layout`).
It uses tarfile on purpose: an implementation other than the one under test.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import zstandard

from layerfs.oci import Descriptor, Digest, Platform
from layerfs.oci import mediatype as types

Style = Literal["oci", "docker"]
Compression = Literal["none", "gzip", "zstd", "bzip2", "xz"]
Name = str | bytes
Json = dict[str, Any]

TIME = 1_700_000_000
"""The mtime of entries that do not say another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of a tar archive."""

    name: Name
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    target: Name = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = TIME
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    """Names with their namespace, ``user.comment``; written as SCHILY.xattr records."""
    pax: Mapping[str, str] = field(default_factory=dict)
    """More extended header records, as they are."""

    def with_(self, **changes: Any) -> "Entry":
        """Return a copy with other values."""
        return replace(self, **changes)


def file(name: Name, content: bytes = b"", mode: int = 0o644, **more: Any) -> Entry:
    """Describe a regular file."""
    return Entry(name=name, content=content, mode=mode, **more)


def directory(name: Name, mode: int = 0o755, **more: Any) -> Entry:
    """Describe a directory."""
    return Entry(name=name, kind=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: Name, target: Name, **more: Any) -> Entry:
    """Describe a symbolic link."""
    return Entry(name=name, kind=tarfile.SYMTYPE, target=target, mode=0o777, **more)


def hardlink(name: Name, target: Name, **more: Any) -> Entry:
    """Describe a hard link to an earlier member."""
    return Entry(name=name, kind=tarfile.LNKTYPE, target=target, **more)


def fifo(name: Name, mode: int = 0o644, **more: Any) -> Entry:
    """Describe a named pipe."""
    return Entry(name=name, kind=tarfile.FIFOTYPE, mode=mode, **more)


def chardev(name: Name, major: int, minor: int, mode: int = 0o600, **more: Any) -> Entry:
    """Describe a character device."""
    return Entry(name=name, kind=tarfile.CHRTYPE, device=(major, minor), mode=mode, **more)


def whiteout(name: Name, **more: Any) -> Entry:
    """Describe the marker that hides *name*: ``dir/.wh.name``."""
    head, tail = os.path.split(os.fsencode(name))
    return file(os.path.join(head, b".wh." + tail), **more)


def opaque(parent: Name, **more: Any) -> Entry:
    """Describe the marker that hides whatever lower layers have in *parent*."""
    return file(os.path.join(os.fsencode(parent), b".wh..wh..opq"), **more)


def tar(entries: Iterable[Entry]) -> bytes:
    """Return the archive of *entries*, in their order, in PAX format."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for entry in entries:
            info = _tar_info(entry)
            archive.addfile(info, io.BytesIO(entry.content) if info.isreg() else None)
    return buffer.getvalue()


def _tar_info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(entry.name))
    info.type = entry.kind
    info.size = len(entry.content)
    info.linkname = os.fsdecode(entry.target)
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
    info.devmajor, info.devminor = entry.device
    records = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in entry.xattrs.items()
    }
    info.pax_headers = records | dict(entry.pax)
    return info


def compress(content: bytes, compression: Compression) -> bytes:
    """Compress *content*, the same bytes each time."""
    match compression:
        case "none":
            return content
        case "gzip":
            return gzip.compress(content, compresslevel=6, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor(level=3).compress(content)
        case "bzip2":
            return bz2.compress(content)
        case "xz":
            return lzma.compress(content, preset=1)


_LAYER_TYPES: dict[tuple[Style, Compression], str] = {
    ("oci", "none"): "application/vnd.oci.image.layer.v1.tar",
    ("oci", "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    ("oci", "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
    ("docker", "none"): "application/vnd.docker.image.rootfs.diff.tar",
    ("docker", "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ("docker", "zstd"): "application/vnd.docker.image.rootfs.diff.tar.zstd",
}


@dataclass(frozen=True)
class BuiltLayer:
    """A layer blob and what it must decompress to."""

    blob: bytes
    digest: Digest
    diff_id: Digest
    compression: Compression
    command: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What the manifest says of it besides."""

    @property
    def size(self) -> int:
        """Size of the blob in bytes."""
        return len(self.blob)

    def media_type(self, style: Style) -> str:
        """Name the media type; a compression without one is called gzip, as Docker's tools did."""
        return _LAYER_TYPES.get((style, self.compression), _LAYER_TYPES[style, "gzip"])

    def descriptor(self, style: Style = "oci") -> Descriptor:
        """Describe the blob as a manifest would."""
        return Descriptor(media_type=self.media_type(style), digest=self.digest, size=self.size)


def layer(
    *entries: Entry, compression: Compression = "gzip", command: str = "", archive: bytes | None = None
) -> BuiltLayer:
    """Build a layer of *entries*, or of the bytes of *archive* as they are."""
    plain = tar(entries) if archive is None else archive
    blob = compress(plain, compression)
    return BuiltLayer(blob, Digest.of(blob), Digest.of(plain), compression, command or "COPY . /")


@dataclass(frozen=True)
class BuiltImage:
    """A manifest, its config and its layers; all bytes as a registry would serve them."""

    layers: tuple[BuiltLayer, ...]
    platform: Platform
    config: bytes
    manifest: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return Digest.of(self.manifest)

    @property
    def config_digest(self) -> Digest:
        """The config's digest."""
        return Digest.of(self.config)

    def blobs(self) -> dict[Digest, bytes]:
        """Return config and layers by digest."""
        return {self.config_digest: self.config} | {built.digest: built.blob for built in self.layers}

    def manifests(self) -> list["BuiltImage | BuiltIndex"]:
        """Return what must be pushed so that this can be: itself alone."""
        return [self]


def image(
    *layers: BuiltLayer,
    style: Style = "oci",
    platform: Platform | None = None,
    runtime: Json | None = None,
    diff_ids: Sequence[Digest] | None = None,
    history: Sequence[Json] | None = None,
    annotations: dict[str, str] | None = None,
) -> BuiltImage:
    """Build an image of *layers*, base first; *diff_ids* and *history* replace the true ones."""
    platform = platform or Platform.of_this_machine()
    claimed = [built.diff_id for built in layers] if diff_ids is None else diff_ids
    made = [{"created": "2024-01-01T00:00:00Z", "created_by": built.command} for built in layers]
    config = to_json(
        {
            "created": "2024-01-01T00:00:00Z",
            "config": runtime or {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in claimed]},
            "history": made if history is None else list(history),
        }
        | _platform_json(platform)
    )
    oci = style == "oci"
    media_type = types.OCI_MANIFEST if oci else types.DOCKER_MANIFEST
    config_type = types.OCI_CONFIG if oci else types.DOCKER_CONFIG
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(config_type, config),
        "layers": [_layer_descriptor(built, style) for built in layers],
    }
    if annotations:
        manifest["annotations"] = annotations
    return BuiltImage(layers, platform, config, to_json(manifest), media_type)


@dataclass(frozen=True)
class BuiltIndex:
    """An index over images for several platforms."""

    images: tuple[BuiltImage, ...]
    manifest: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        """The index's digest."""
        return Digest.of(self.manifest)

    def blobs(self) -> dict[Digest, bytes]:
        """Return configs and layers of all images by digest."""
        found: dict[Digest, bytes] = {}
        for built in self.images:
            found |= built.blobs()
        return found

    def manifests(self) -> list["BuiltImage | BuiltIndex"]:
        """Return what must be pushed, in an order a registry accepts."""
        return [*self.images, self]


Built = BuiltImage | BuiltIndex


def index(*images: BuiltImage, style: Style = "oci") -> BuiltIndex:
    """Build an index that offers *images*, each for its platform."""
    media_type = types.OCI_INDEX if style == "oci" else types.DOCKER_INDEX
    entries = [
        _descriptor(built.media_type, built.manifest) | {"platform": _platform_json(built.platform)}
        for built in images
    ]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return BuiltIndex(images, to_json(document), media_type)


def write_layout(path: Path, built: Built, tag: str = "latest") -> Path:
    """Write *built* as an OCI image layout; `skopeo copy oci:PATH:TAG` and umoci read it."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, content in built.blobs().items():
        (blobs / digest.hex).write_bytes(content)
    for document in built.manifests():
        (blobs / document.digest.hex).write_bytes(document.manifest)
    entry = _descriptor(built.media_type, built.manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (path / "index.json").write_bytes(to_json({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_bytes(to_json({"imageLayoutVersion": "1.0.0"}))
    return path


def flip_byte(content: bytes, at: int = -9) -> bytes:
    """Return *content* with one bit of one byte changed: same size, another digest."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def to_json(value: Json) -> bytes:
    """Encode a document with stable bytes."""
    return json.dumps(value, indent=1, sort_keys=True).encode("utf-8")


def _descriptor(media_type: str, content: bytes) -> Json:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


def _layer_descriptor(built: BuiltLayer, style: Style) -> Json:
    annotations = {"annotations": dict(built.annotations)} if built.annotations else {}
    return _descriptor(built.media_type(style), built.blob) | annotations


def _platform_json(platform: Platform) -> Json:
    named = {"os": platform.os, "architecture": platform.architecture}
    return named | ({"variant": platform.variant} if platform.variant else {})
