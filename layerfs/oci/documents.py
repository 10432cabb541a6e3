"""The JSON of manifests, indexes and configs as strict structs. Private to this package.

Unknown fields are ignored, as image-spec (considerations.md, extensibility) demands; known ones must
have their type, or be null where they may be absent: programs in Go write null for what is not set, and
read it as that. `decode` turns every schema error into one that names document and field.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any, TypeVar

import msgspec

from layerfs.errors import InvalidDigest, InvalidDocument
from layerfs.foreign import NAME, decode_json, printable
from layerfs.oci.descriptor import Descriptor
from layerfs.oci.digest import Digest
from layerfs.oci.platform import Platform

MAX_DOCUMENT_SIZE = 4 << 20
"""Bytes; what c/image and containerd read at most of a manifest, index or config."""

MAX_VALUES = 100_000
"""Commas and opening brackets of a document, which is about how many values it has: each becomes an object or
more, whoever reads it. The largest public documents have some thousands."""

_MAX_SIZE = (1 << 63) - 1


Texts = list[str | None]
"""A null among texts is an empty one."""
Labels = dict[str, str | None]


class PlatformJson(msgspec.Struct, frozen=True):
    """The ``platform`` object of an index entry."""

    architecture: str | None = None
    os: str | None = None
    variant: str | None = None
    os_features: Texts | None = msgspec.field(default=None, name="os.features")


class DescriptorJson(msgspec.Struct, frozen=True, rename="camel"):
    """A descriptor as it stands in JSON."""

    digest: str
    size: int
    media_type: str | None = None
    urls: Texts | None = None
    annotations: Labels | None = None
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
    annotations: Labels | None = None


class RootfsJson(msgspec.Struct, frozen=True):
    """The ``rootfs`` object of a config."""

    type: str | None = None
    diff_ids: list[str] | None = None


class HistoryJson(msgspec.Struct, frozen=True):
    """One entry of a config's ``history``."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class RuntimeJson(msgspec.Struct, frozen=True, rename="pascal"):
    """The ``config`` object of a config: how a container starts."""

    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: Texts | None = None
    entrypoint: Texts | None = None
    cmd: Texts | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: Labels | None = None
    stop_signal: str | None = None


class ConfigJson(msgspec.Struct, frozen=True):
    """An image configuration (image-spec, config.md)."""

    rootfs: RootfsJson
    architecture: str | None = None
    os: str | None = None
    variant: str | None = None
    created: str | None = None
    author: str | None = None
    config: RuntimeJson | None = None
    history: list[HistoryJson | None] | None = None


T = TypeVar("T")


def decode(raw: bytes, type_: type[T], what: str) -> T:
    """Read *raw* as *type_*. Raises InvalidDocument, naming *what* and the field."""
    if len(raw) > MAX_DOCUMENT_SIZE:
        raise InvalidDocument(f"{what}: {len(raw)} bytes (expected at most {MAX_DOCUMENT_SIZE})")
    values = sum(map(raw.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise InvalidDocument(f"{what}: about {values} values (expected at most {MAX_VALUES})")
    try:
        return decode_json(raw, type_)
    except msgspec.DecodeError as exc:
        raise InvalidDocument(f"{what}: {exc}") from exc


def descriptor(json: DescriptorJson, where: str) -> Descriptor:
    """Turn JSON into a Descriptor. Raises InvalidDocument, naming *where*."""
    if not 0 <= json.size <= _MAX_SIZE:
        raise InvalidDocument(f"{where}.size: {json.size} (expected 0 or more)")
    return Descriptor(
        media_type=word(json.media_type),
        digest=digest(json.digest, f"{where}.digest"),
        size=json.size,
        urls=texts(json.urls),
        data=_data(json.data, where),
        platform=platform(json.platform),
        os_features=tuple(map(word, json.platform.os_features or ())) if json.platform else (),
        artifact_type=word(json.artifact_type) or None,
        annotations=labels(json.annotations),
    )


def platform(json: PlatformJson | None) -> Platform | None:
    """Return the platform of an index entry; None if it names no operating system."""
    if json is None or not json.os:
        return None
    return Platform.of(json.os, json.architecture or "", json.variant or "")


def texts(json: Texts | None) -> tuple[str, ...]:
    """Return a list of texts, exactly, empty for null."""
    return tuple(text or "" for text in json or ())


def labels(json: Labels | None) -> dict[str, str]:
    """Return labels or annotations, exactly, empty for null."""
    return {key: text or "" for key, text in (json or {}).items()}


def word(json: str | None) -> str:
    """Return a type, a time or another word so that it can be shown; empty for null."""
    return printable(json or "", NAME)


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
