"""The JSON of manifests, indexes and configs as strict structs. Private to this package.

Unknown fields are ignored, as image-spec (considerations.md, extensibility) demands; known ones must
have their type. `decode` turns every schema error into one that names document and field.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any, TypeVar

import msgspec

from layerfs.errors import InvalidDigest, InvalidDocument
from layerfs.oci.descriptor import Descriptor
from layerfs.oci.digest import Digest
from layerfs.oci.platform import Platform

MAX_DOCUMENT_SIZE = 4 << 20
"""Bytes; what c/image and containerd read at most of a manifest, index or config."""

_MAX_SIZE = (1 << 63) - 1


class PlatformJson(msgspec.Struct, frozen=True):
    """The ``platform`` object of an index entry."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class DescriptorJson(msgspec.Struct, frozen=True, rename="camel"):
    """A descriptor as it stands in JSON."""

    digest: str
    size: int
    media_type: str = ""
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    platform: PlatformJson | None = None
    artifact_type: str | None = None


class ManifestJson(msgspec.Struct, frozen=True, rename="camel"):
    """A manifest or an index: which one shows in its fields."""

    schema_version: int
    media_type: str | None = None
    artifact_type: str | None = None
    config: DescriptorJson | None = None
    layers: list[DescriptorJson] | None = None
    manifests: list[DescriptorJson] | None = None
    subject: DescriptorJson | None = None
    annotations: dict[str, str] | None = None


class RootfsJson(msgspec.Struct, frozen=True):
    """The ``rootfs`` object of a config."""

    type: str
    diff_ids: list[str] | None = None


class HistoryJson(msgspec.Struct, frozen=True):
    """One entry of a config's ``history``."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RuntimeJson(msgspec.Struct, frozen=True, rename="pascal"):
    """The ``config`` object of a config: how a container starts."""

    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None


class ConfigJson(msgspec.Struct, frozen=True):
    """An image configuration (image-spec, config.md)."""

    architecture: str
    os: str
    rootfs: RootfsJson
    variant: str = ""
    created: str | None = None
    author: str | None = None
    config: RuntimeJson | None = None
    history: list[HistoryJson] | None = None


T = TypeVar("T")


def decode(raw: bytes, type_: type[T], what: str) -> T:
    """Read *raw* as *type_*. Raises InvalidDocument, naming *what* and the field."""
    if len(raw) > MAX_DOCUMENT_SIZE:
        raise InvalidDocument(f"{what}: {len(raw)} bytes (expected at most {MAX_DOCUMENT_SIZE})")
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidDocument(f"{what}: {exc}") from exc


def descriptor(json: DescriptorJson, where: str) -> Descriptor:
    """Turn JSON into a Descriptor. Raises InvalidDocument, naming *where*."""
    if not 0 <= json.size <= _MAX_SIZE:
        raise InvalidDocument(f"{where}.size: {json.size} (expected 0 or more)")
    found = json.platform
    return Descriptor(
        media_type=json.media_type,
        digest=digest(json.digest, f"{where}.digest"),
        size=json.size,
        urls=tuple(json.urls or ()),
        data=_data(json.data, where),
        platform=Platform.of(found.os, found.architecture, found.variant) if found and found.os else None,
        artifact_type=json.artifact_type,
        annotations=json.annotations or {},
    )


def digest(text: str, where: str) -> Digest:
    """Parse a digest field. Raises InvalidDocument, naming *where*."""
    try:
        return Digest.parse(text)
    except InvalidDigest as exc:
        raise InvalidDocument(f"{where}: {exc}") from exc


def _data(text: str | None, where: str) -> bytes | None:
    if text is None:
        return None
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError) as exc:
        raise InvalidDocument(f"{where}.data: not base64: {exc}") from exc
