"""The images of a store in a list: what their names mean, how much of them is here, who uses them."""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec

from layerfs.catalog.documents import DocumentReader, ImageDocuments
from layerfs.errors import LayerfsError
from layerfs.gc.collect import Collector
from layerfs.gc.plan import Users
from layerfs.oci import (
    Digest,
    Image,
    ImageReference,
    Index,
    Manifest,
    Platform,
    documents_below,
    stack_digest,
)
from layerfs.oci.image import LayerKey
from layerfs.store import ImageStorage, RefEntry
from layerfs.store.records import MERGERS


class StoredContent(msgspec.Struct, frozen=True):
    """What is known of an image for one platform whose documents are here."""

    manifest: Digest
    platform: Platform
    layers: int
    """How many different layers it has."""
    size: int
    """Bytes of their blobs."""
    fetched: int
    """How many of the layers are here, whole."""
    lazy: int
    """How many are not, but their files are listed, and come when they are opened."""
    created: str | None
    """When the config says that it was made."""
    in_use: tuple[str, ...]
    """Leases that need all of it, and a mount that uses its cover or its topmost layer."""


class StoredImage(msgspec.Struct, frozen=True):
    """A reference of a store, and what it names."""

    reference: ImageReference
    digest: Digest
    """That of the manifest, or of the index."""
    resolved_at: datetime
    """Since when it names that (UTC)."""
    content: StoredContent | None = None
    """None if the documents are not here or are damaged, and for what is no image."""
    artifact: str | None = None
    """What it is that is no image: a media type."""


def list_images(
    storage: ImageStorage, refs: Mapping[ImageReference, RefEntry], wanted: Platform, *, one: bool = False
) -> list[StoredImage]:
    """Return a row for each platform whose image is here; with *one* for *wanted* alone. In order of *refs*.

    Reads documents and who uses what; contacts no registry, writes nothing. Raises StoreError.
    """
    reader = DocumentReader(storage, wanted)
    users = Collector(storage, counts=None).users()
    return [
        _row(storage, reader, users, reference, entry, digest)
        for reference, entry in refs.items()
        for digest in ([entry.digest] if one else _platforms(reader, reference, entry.digest))
    ]


def _platforms(reader: DocumentReader, reference: ImageReference, digest: Digest) -> list[Digest]:
    """Return the images below a document that the store has documents of; the document itself if none."""

    def load(each: Digest) -> Manifest | Index | None:
        try:
            return reader.document(each)
        except LayerfsError:
            return None

    def found() -> Iterator[Digest]:
        for document in documents_below(digest, load):
            if isinstance(document, Manifest) and document.is_image:
                with contextlib.suppress(LayerfsError):
                    if isinstance(reader.read(reference.repository, document.digest), ImageDocuments):
                        yield document.digest

    return list(found()) or [digest]


def _row(
    storage: ImageStorage,
    reader: DocumentReader,
    users: Users,
    reference: ImageReference,
    entry: RefEntry,
    digest: Digest,
) -> StoredImage:
    row = StoredImage(reference, entry.digest, entry.resolved_at)
    try:
        found = reader.read(reference.repository, digest)
    except LayerfsError:  # a document is damaged
        return row
    if not isinstance(found, ImageDocuments):  # only the tag is known
        return row
    if found.image is not None:
        return msgspec.structs.replace(row, content=_content(storage, users, found.image))
    manifest = found.manifest
    kind = None if manifest is None or manifest.is_image else manifest.kind
    return msgspec.structs.replace(row, artifact=kind)


def _content(storage: ImageStorage, users: Users, image: Image) -> StoredContent:
    blobs = {layer.digest: layer.size for layer in image.layers}
    return StoredContent(
        manifest=image.manifest.digest,
        platform=image.config.platform,
        layers=len(blobs),
        size=sum(blobs.values()),
        fetched=sum(storage.open_layer(blob) is not None for blob in blobs),
        lazy=len({layer.digest for layer in image.layers if _is_listed(storage, layer.key)}),
        created=image.config.created,
        in_use=_uses(image, users),
    )


def _is_listed(storage: ImageStorage, key: LayerKey) -> bool:
    """Say whether the files of a layer are listed that is not whole."""
    listed = key.toc is not None and storage.lazy.open_skeleton_of(key.toc, key.digest) is not None
    return listed and storage.open_layer(key.digest) is None


def _uses(image: Image, users: Users) -> tuple[str, ...]:
    """Say which leases need all of an image, and which mount uses its cover or its topmost layer.

    The layers below may be another image's as well.
    """
    layers = [layer.digest for layer in image.layers]
    leases = [root.name for root in users.roots if root.digests.issuperset(layers)]
    usage = users.usage
    if not (usage.digests or usage.short_ids):  # of anything: mostly there is no overlay at all
        return tuple(leases)
    tops = (*(stack_digest(layers, merger) for merger in MERGERS), *layers[-1:])
    mounts = (usage.use_of(digest) for digest in tops)
    return (*leases, *dict.fromkeys(str(mount) for mount in mounts if mount is not None))
