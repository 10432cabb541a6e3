"""Archives of ``docker save`` and ``podman save``: a config and layers, no manifest.

The manifest is made here, always the same for the same archive: layers that are plain tars have their
diff_id as digest, so nothing needs hashing but compressed ones. What it claims is verified on import.
"""

import hashlib
from typing import Final

import msgspec

from layerfs.compression import sniff
from layerfs.compression.formats import NONE, SNIFFED
from layerfs.errors import InvalidDocument
from layerfs.local.archive import Archive
from layerfs.local.contents import SourceImage
from layerfs.local.pieces import FilePart, opened, read_at
from layerfs.oci import Digest, ImageConfig
from layerfs.oci.documents import MAX_DOCUMENT_SIZE, Texts, decode, word
from layerfs.oci.manifest import MAX_LAYERS
from layerfs.oci.mediatype import OCI_CONFIG, OCI_MANIFEST, layer_type

MANIFEST: Final = "manifest.json"
_MAX_IMAGES: Final = 1000
_MAX_MANIFEST: Final = 1 << 20
"""Bytes; as c/image reads at most (docker/internal/tarfile)."""
_CHUNK: Final = 1 << 20


class _ImageJson(msgspec.Struct, frozen=True):
    config: str
    layers: list[str] | None = None
    repotags: Texts | None = None


class DockerSave:
    """The images of one archive."""

    def __init__(self, archive: Archive, what: str) -> None:
        """Read the lists and configs. Raises InvalidDocument, InvalidArchive, StoreError."""
        self._archive = archive
        self._what = what
        self._found: dict[Digest, FilePart | bytes] = {}
        self.images: list[SourceImage] = []
        listed = _listed(self._file(MANIFEST).read(_MAX_MANIFEST), f"{what}: {MANIFEST}")
        if len(listed) > _MAX_IMAGES:
            raise InvalidDocument(f"{what}: {len(listed)} images (expected at most {_MAX_IMAGES})")
        for json in listed:
            self._add(json)

    def find(self, digest: Digest) -> FilePart | bytes | None:
        """Return where the bytes named *digest* are."""
        return self._found.get(digest)

    def _add(self, json: _ImageJson) -> None:
        config = self._file(json.config).read(MAX_DOCUMENT_SIZE)
        config_digest = Digest.of(config)
        parsed = ImageConfig.parse(config, f"{self._what}: {json.config[:100]}")
        files = json.layers or []
        if len(files) != len(parsed.diff_ids) or len(files) > MAX_LAYERS:
            raise InvalidDocument(
                f"{self._what}: {len(files)} layers, but {json.config[:100]} has {len(parsed.diff_ids)} "
                "rootfs.diff_ids (expected as many)"
            )
        layers = [self._layer(name, diff_id) for name, diff_id in zip(files, parsed.diff_ids, strict=True)]
        manifest = msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": str(config_digest), "size": len(config)},
                "layers": layers,
            }
        )
        digest = Digest.of(manifest)
        self._found |= {config_digest: config, digest: manifest}
        self.images.append(SourceImage(digest, tuple(filter(None, map(word, json.repotags or ())))))

    def _layer(self, name: str, diff_id: Digest) -> dict[str, object]:
        """Return the descriptor of a layer, and remember where it is."""
        piece = self._file(name)
        with opened(piece.path) as fd:
            found = sniff(read_at(fd, piece.offset, min(SNIFFED, piece.size), piece.path))
            digest = diff_id if found is NONE else _hashed(fd, piece)
        self._found.setdefault(digest, piece)
        return {"mediaType": layer_type(found.name), "digest": str(digest), "size": piece.size}

    def _file(self, name: str) -> FilePart:
        piece = self._archive.find(name)
        if piece is None:
            raise InvalidDocument(
                f"{self._what}: no member {name[:100]!r} (expected what docker save writes)"
            )
        return piece


def _listed(raw: bytes, what: str) -> list[_ImageJson]:
    """Read ``manifest.json``. Docker reads its keys in any case, and old jib writes ``repoTags``."""
    rows = decode(raw, list[dict[str, msgspec.Raw]], what)
    return [
        decode(msgspec.json.encode({key.lower(): value for key, value in row.items()}), _ImageJson, what)
        for row in rows
    ]


def _hashed(fd: int, piece: FilePart) -> Digest:
    hasher = hashlib.sha256()
    for offset in range(piece.offset, piece.offset + piece.size, _CHUNK):
        hasher.update(read_at(fd, offset, min(_CHUNK, piece.offset + piece.size - offset), piece.path))
    return Digest.finish("sha256", hasher)
