"""OCI image layouts, in a directory or in an archive (image-spec, image-layout.md)."""

from collections.abc import Callable
from typing import Final

import msgspec

from layerfs.errors import InvalidDocument, UnsupportedImage
from layerfs.foreign import NAME, printable
from layerfs.local.contents import SourceImage
from layerfs.local.pieces import FilePart
from layerfs.oci import Digest
from layerfs.oci.documents import MAX_DOCUMENT_SIZE, decode
from layerfs.oci.manifest import parse_index
from layerfs.oci.mediatype import INDEXES, MANIFESTS

MARKER: Final = "oci-layout"
_MAX_MARKER: Final = 4096
REF_NAME: Final = "org.opencontainers.image.ref.name"
FULL_NAME: Final = "io.containerd.image.name"
"""What docker and containerd write beside the tag."""

Find = Callable[[str], FilePart | None]
"""Looks a file of the layout up by its path in it."""


class _MarkerJson(msgspec.Struct, frozen=True, rename="camel"):
    image_layout_version: str


class ImageLayout:
    """One layout. Raises NotFound, Denied, InvalidArchive, StoreError where it reads."""

    def __init__(self, find: Find, what: str) -> None:
        """Read marker and index. Raises InvalidDocument, UnsupportedImage besides."""
        self._find = find
        marker = decode(self._document(MARKER, what, _MAX_MARKER), _MarkerJson, f"{what}: {MARKER}")
        if marker.image_layout_version.partition(".")[0] != "1":
            raise UnsupportedImage(
                f"{what}: layout version {marker.image_layout_version[:40]!r} (expected 1.0.0)"
            )
        raw = self._document("index.json", what, MAX_DOCUMENT_SIZE)
        index = parse_index(raw, f"{what}: index.json")
        self.images = [
            SourceImage(
                entry.digest,
                tuple(
                    printable(name, NAME)
                    for key in (FULL_NAME, REF_NAME)
                    if (name := entry.annotations.get(key))
                ),
                entry.platform,
                entry.artifact_type or "",
            )
            for entry in index.manifests
            # Others may stand there, too, and mean nothing to us (image-layout.md, "index.json").
            if not entry.media_type or entry.media_type in INDEXES | MANIFESTS
        ]

    def find(self, digest: Digest) -> FilePart | None:
        """Return where the bytes named *digest* are."""
        return self._find(f"blobs/{digest.algorithm}/{digest.hex}")

    def _document(self, name: str, what: str, limit: int) -> bytes:
        piece = self._find(name)
        if piece is None:
            raise InvalidDocument(f"{what}: no {name} (expected an OCI image layout)")
        return piece.read(limit)
