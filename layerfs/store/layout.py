"""Where everything in the store lies. The one place that turns digests and references into paths.

Does no I/O and decides nothing else. A path is only ever made of a parsed value: a `Digest`, a
`Repository`, a `Tag`.
"""

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec

from layerfs.errors import InvalidReference
from layerfs.oci import Digest, ImageReference, Tag

StagedKind = Literal["aside", "downloading", "extracting", "part", "removing", "writing"]

EXTRACTED: Final = "extracted"
"""The directory of the extracted layers."""
COVERS: Final = "covers"
"""The directory of the covers."""
SKELETONS: Final = "skeletons"
"""The directory of the skeletons of lazy layers."""
TOCS: Final = "tocs"
"""The directory of their TOCs."""
OBJECTS: Final = "objects"
"""The directory of their files."""
OVERLAYS: Final = "overlays"
"""The directory of what overlays write."""
BLOB_SUFFIX: Final = ".tar.gz"
RECORD_SUFFIX: Final = ".json"
NAME_MAX: Final = 255
"""Bytes in one file name, on every filesystem that matters (limits.h)."""

_STAGED = r"(?P<stem>.*)\.[0-9a-f]{32}\.(?P<kind>aside|downloading|extracting|part|removing|writing)"


def as_digest(digest: Digest | str) -> Digest:
    """Return *digest* parsed. Raises InvalidDigest."""
    return digest if isinstance(digest, Digest) else Digest.parse(digest)


class StagedName(msgspec.Struct, frozen=True):
    """The parts of a staged file's name: what it will be, and how it gets there."""

    stem: str
    kind: StagedKind

    @classmethod
    def parse(cls, name: str) -> "StagedName | None":
        """Read ``<stem>.<32 hex>.<kind>``; None for any other name."""
        match = re.fullmatch(_STAGED, name, re.DOTALL)
        return cls(match["stem"], match["kind"]) if match else None  # type: ignore[arg-type]  # the regex lists the kinds


class StoreLayout(msgspec.Struct, frozen=True, dict=True):
    """The directories and files of one store."""

    root: Path

    @cached_property
    def manifests(self) -> Path:
        """Directory of manifests and indexes."""
        return self.root / "manifests"

    @cached_property
    def configs(self) -> Path:
        """Directory of image configurations."""
        return self.root / "configs"

    @cached_property
    def layers(self) -> Path:
        """Directory of compressed blobs."""
        return self.root / "layers"

    @cached_property
    def extracted(self) -> Path:
        """Directory of layer directories and their records."""
        return self.root / EXTRACTED

    @cached_property
    def covers(self) -> Path:
        """Directory of covers and their records."""
        return self.root / COVERS

    @cached_property
    def tocs(self) -> Path:
        """Directory of TOCs as they are in their blobs."""
        return self.root / TOCS

    @cached_property
    def skeletons(self) -> Path:
        """Directory of the skeletons of lazy layers and their records."""
        return self.root / SKELETONS

    @cached_property
    def objects(self) -> Path:
        """Directory of files of lazy layers, by their content."""
        return self.root / OBJECTS

    @cached_property
    def refs(self) -> Path:
        """Directory of pinned tags."""
        return self.root / "refs"

    @cached_property
    def local(self) -> Path:
        """Directory of caches of local bundles."""
        return self.root / "local"

    @cached_property
    def overlays(self) -> Path:
        """Directory of what writable overlays write; made when there is one."""
        return self.root / OVERLAYS

    @cached_property
    def leases(self) -> Path:
        """Directory of what programs need; made when there is one."""
        return self.root / "leases"

    @cached_property
    def lock(self) -> Path:
        """The file whose bytes are locked; always empty."""
        return self.root / "lock"

    @cached_property
    def owner(self) -> Path:
        """The file that says who made the store."""
        return self.root / "owner.json"

    @cached_property
    def verified(self) -> Path:
        """The file that says how far an interrupted verification came."""
        return self.root / "verified"

    @cached_property
    def later_directories(self) -> tuple[Path, ...]:
        """Directories that are made when there is something to put into them."""
        return (self.overlays, self.leases)

    @cached_property
    def directories(self) -> tuple[Path, ...]:
        """Every directory that an open store has."""
        return (
            self.manifests,
            self.configs,
            self.layers,
            self.extracted,
            self.covers,
            self.tocs,
            self.skeletons,
            self.objects,
            self.refs,
            self.local,
        )

    def manifest(self, digest: Digest | str) -> Path:
        """Path of a manifest or index. Raises InvalidDigest."""
        return self.manifests / f"{as_digest(digest).name}.json"

    def config(self, digest: Digest | str) -> Path:
        """Path of an image configuration. Raises InvalidDigest."""
        return self.configs / f"{as_digest(digest).name}.json"

    def blob(self, digest: Digest | str) -> Path:
        """Path of a compressed layer, whatever its compression. Raises InvalidDigest."""
        return self.layers / f"{as_digest(digest).name}{BLOB_SUFFIX}"

    def tree(self, digest: Digest | str) -> Path:
        """Path of a layer directory. Raises InvalidDigest."""
        return self.extracted / as_digest(digest).name

    def toc(self, digest: Digest | str) -> Path:
        """Path of the directory of a TOC. Raises InvalidDigest."""
        return self.tocs / as_digest(digest).name

    def bundle_cache(self, bundle_path: Path, manifest_digest: Digest | str) -> Path:
        """Path of the cache of one image of a local bundle. Raises InvalidDigest."""
        place = hashlib.sha256(bytes(bundle_path)).hexdigest()[:8]
        return self.local / f"{place}-{as_digest(manifest_digest).hex[:8]}"

    def registry(self, registry: str) -> Path:
        """Directory of a registry's refs; *registry* comes from a `Repository` or from a listing."""
        return self.refs / registry

    def ref(self, name: Tag | ImageReference) -> Path:
        """Path of a ref: of a tag, or of an image that is kept by its digest, which then decides.

        Raises InvalidReference if its last component is too long for a file.
        """
        target = name.target if isinstance(name, ImageReference) else name
        end = f"@{target.name}" if isinstance(target, Digest) else f":{target.name}"
        path = self.refs / name.repository.registry / f"{name.repository.path}{end}"
        if len(path.name) > NAME_MAX:
            raise InvalidReference(f"{path.name[:60]!r}...: longer than a file name ({NAME_MAX} bytes)")
        return path

    def staged_ref(self) -> Path:
        """Return a fresh name for a ref that is being written; the dot keeps it out of every listing."""
        return self.refs / f".{_random()}.writing"


def staged(directory: Path, stem: str, kind: StagedKind, mark: str = "") -> Path:
    """Return a fresh name in *directory* that `StagedName.parse` recognises; *mark* is from `mark_of`."""
    return directory / f"{stem}.{mark}{_random()[len(mark) :]}.{kind}"


def mark_of(source: str) -> str:
    """Return the hex digits that tell staged files of one source from those of others."""
    return hashlib.sha256(source.encode()).hexdigest()[:20]


def _random() -> str:
    return os.urandom(16).hex()
