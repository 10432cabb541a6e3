"""Layers to measure with, made of what the machine has, and kept in the cache.

Every input is a one-layer OCI layout, so that each contender gets it in the form it wants; building is
done in a directory beside and published by rename, so an interrupted build leaves nothing half done.
"""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from benchlib import machine, trees
from tests.support import images

Compression = Literal["gzip", "zstd", "zstd-19"]
_VERSION = 1
_CHUNK = 1 << 20
_COMPRESSORS: dict[Compression, list[str]] = {
    "gzip": ["gzip", "-6", "-n", "-c"],
    "zstd": ["zstd", "-3", "-q", "-c"],
    "zstd-19": ["zstd", "-19", "-T0", "-q", "-c"],
}
COMPRESSIONS = tuple(_COMPRESSORS)


@dataclass(frozen=True, slots=True)
class Input:
    """One layer, as a blob and as an image of it."""

    name: str
    about: str
    directory: str
    digest: str
    diff_id: str
    size: int
    tar_size: int
    entries: int
    compression: Compression

    @property
    def layout(self) -> Path:
        """An OCI layout with the image ``latest``."""
        return Path(self.directory, "layout")

    @property
    def blob(self) -> Path:
        """The compressed archive."""
        return self.layout / "blobs/sha256" / self.digest.removeprefix("sha256:")

    @property
    def format(self) -> Literal["gzip", "zstd"]:
        """How the blob is compressed, at whatever level."""
        return "gzip" if self.compression == "gzip" else "zstd"

    @property
    def media_type(self) -> str:
        """Of the blob."""
        return f"application/vnd.oci.image.layer.v1.tar+{self.format}"

    def describe(self) -> str:
        """Return name and sizes for a title."""
        return (
            f"({self.name}) {self.about}, {self.compression}: {self.entries:,} entries, "
            f"{self.tar_size / 1e6:,.0f} MB, compressed {self.size / 1e6:,.0f} MB"
        )


# What an input holds: a line about it, and who writes its archive.
Writer = Callable[[IO[bytes]], None]
_SOURCES: dict[str, tuple[str, Writer]] = {
    "a": ("a distribution's root", trees.distribution),
    "b": ("many small files", trees.small_files),
    "c": ("deep and wide, empty files and links", trees.links),
    "d": ("one file of 2 GiB", lambda out: trees.one_file(out, 2 << 30)),
    "e": ("few large files", trees.large_files),
    "f": ("many small files, GNU headers", trees.small_files_of_gnu_tar),
    "g": ("many small files, as Go writes them", trees.small_files_of_go),
    "h": ("many tiny files, ustar", trees.tiny_files),
    "big": ("one file of 1 GiB", lambda out: trees.one_file(out, 1 << 30)),
    "tiny": ("one file of one byte", lambda out: trees.one_file(out, 1)),
}
NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")


def get(name: str, compression: Compression, progress: Callable[[str], None]) -> Input:
    """Return an input from the cache, built if need be."""
    directory = machine.cache_directory() / f"{name}-{compression}-v{_VERSION}"
    if not directory.exists():
        progress(f"building input ({name}), {compression}; this is done once")
        with tempfile.TemporaryDirectory(prefix="build.", dir=directory.parent) as base:
            built = Path(base, "input")
            _build(built, name, compression)
            os.rename(built, directory)
    about = _SOURCES[name][0]
    facts: dict[str, Any] = json.loads((directory / "input.json").read_text())
    return Input(**(facts | {"name": name, "about": about, "directory": str(directory)}))


def _build(directory: Path, name: str, compression: Compression) -> None:
    blobs = directory / "layout/blobs/sha256"
    blobs.mkdir(parents=True)
    plain, packed = directory / "layer.tar", directory / "layer"
    with plain.open("wb") as out:
        _SOURCES[name][1](out)
    with packed.open("wb") as out:
        subprocess.run([*_COMPRESSORS[compression], plain], stdout=out, check=True)
    with tarfile.open(plain) as archive:
        entries = sum(1 for _ in archive)
    found = Input(
        name,
        "",
        "",
        _digest(packed),
        _digest(plain),
        packed.stat().st_size,
        plain.stat().st_size,
        entries,
        compression,
    )
    plain.unlink()
    packed.rename(blobs / found.digest.removeprefix("sha256:"))
    _write_layout(directory / "layout", found)
    (directory / "input.json").write_text(json.dumps(asdict(found)))


def _write_layout(layout: Path, found: Input) -> None:
    blank = images.image(images.layer())
    config = json.loads(blank.config) | {"rootfs": {"type": "layers", "diff_ids": [found.diff_id]}}
    manifest = json.loads(blank.manifest)
    manifest["config"] |= _put(layout, images.to_json(config))
    manifest["layers"] = [{"mediaType": found.media_type, "digest": found.digest, "size": found.size}]
    entry = {"mediaType": blank.media_type, **_put(layout, images.to_json(manifest))}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (layout / "index.json").write_bytes(images.to_json({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_bytes(images.to_json({"imageLayoutVersion": "1.0.0"}))


def _put(layout: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def _digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return f"sha256:{hasher.hexdigest()}"
