"""Descriptors: a digest with what is known of its bytes (image-spec, descriptor.md)."""

from dataclasses import dataclass, field

from layerfs.oci.digest import Digest
from layerfs.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob: type, digest and exact size in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    data: bytes | None = None
    """The content itself where the document embeds it; unverified, check size and digest."""
    platform: Platform | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    os_features: tuple[str, ...] = ()
    """What a reader of the image must understand besides, ``nydus.remoteimage.v1`` for instance."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a tag names now, as a registry or an archive says."""

    digest: Digest
    media_type: str
    """As announced, without parameters; empty if nothing useful was said."""
    raw: bytes | None
    """The verified bytes of the document, where its digest could not be said without them."""
