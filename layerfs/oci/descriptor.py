"""Descriptors: a digest with what is known of its bytes (image-spec, descriptor.md)."""

import msgspec

from layerfs.oci.digest import Digest
from layerfs.oci.platform import Platform


class Descriptor(msgspec.Struct, frozen=True):
    """What a manifest says of a blob: type, digest and exact size in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    data: bytes | None = None
    """The content itself where the document embeds it; unverified, check size and digest."""
    platform: Platform | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    os_features: tuple[str, ...] = ()
    """What a reader of the image must understand besides, ``nydus.remoteimage.v1`` for instance."""

    def __hash__(self) -> int:
        return hash((self.digest, self.media_type))


class Resolved(msgspec.Struct, frozen=True):
    """What a tag names now, as a registry or an archive says."""

    digest: Digest
    media_type: str
    """As announced, without parameters; empty if nothing useful was said."""
    raw: bytes | None
    """The verified bytes of the document, where they were wanted or its digest could not be said without."""
