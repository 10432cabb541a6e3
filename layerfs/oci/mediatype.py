"""Media types of images, and what follows from them (image-spec, media-types.md)."""

import re
from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
UNTYPED: Final = frozenset({"", "application/octet-stream"})
"""Types that say nothing; Docker 1.10 and 1.11 gave them to configs of images."""
SCHEMA1: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})

ACCEPT_MANIFESTS: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)

_OCI_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)
_DOCKER_LAYERS = (
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
LAYERS: Final = frozenset(
    [f"{base}{suffix}" for base in _OCI_LAYERS for suffix in ("", "+gzip", "+zstd")]
    + [f"{base}{suffix}" for base in _DOCKER_LAYERS for suffix in ("", ".gzip", ".zstd")]
)

_ARCHIVE = r"\b(?:g?tar|tgz|gzip|zstd)\b"
_ENCRYPTED = "+encrypted"


def is_archive(media_type: str) -> bool:
    """Say whether a layer of this type may be a tar archive, as far as its type tells.

    No archives are layers that ocicrypt has encrypted, signatures, attestations, WebAssembly, and filesystems
    such as those of nydus.
    """
    if media_type in LAYERS or media_type in UNTYPED:
        return True
    return re.search(_ARCHIVE, media_type) is not None and not media_type.endswith(_ENCRYPTED)


def is_foreign(media_type: str) -> bool:
    """Say whether a layer of this type may live outside the registry, at its ``urls``."""
    return ".nondistributable." in media_type or ".foreign." in media_type


def layer_type(compression: str) -> str:
    """Return the type of a layer; the plain one for a compression that the specification has no type for."""
    typed = f"{_OCI_LAYERS[0]}+{compression}"
    return typed if typed in LAYERS else _OCI_LAYERS[0]


def promises_other(media_type: str, compression: str) -> bool:
    """Say whether a layer's *media_type* promises another compression than the one that was found."""
    return media_type in LAYERS and compression_of(media_type) != compression


def compression_of(media_type: str) -> str:
    """Say what the type promises: ``gzip``, ``zstd`` or ``none``. The bytes decide, not this."""
    for name in ("gzip", "zstd"):
        if media_type.endswith((f"+{name}", f".{name}")):
            return name
    return "none"
