"""Image configurations: which layers belong together, and how a container starts.

Source: image-spec config.md.
"""

from typing import Final

import msgspec

from layerfs.errors import InvalidDocument
from layerfs.foreign import printable
from layerfs.oci.digest import Digest
from layerfs.oci.documents import ConfigJson, HistoryJson, RuntimeJson, decode, digest, labels, texts, word
from layerfs.oci.platform import Platform

UNKNOWN: Final = "unknown"
"""What BuildKit writes where there is no platform."""


MAX_HISTORY: Final = 2000
"""Steps of a build; each layer may have one, and many more have none."""


class HistoryEntry(msgspec.Struct, frozen=True):
    """What one build step did, in printable lines; an empty layer has no entry in the manifest."""

    created_by: str
    created: str | None
    comment: str
    empty_layer: bool


class RuntimeConfig(msgspec.Struct, frozen=True):
    """How a container of the image starts, exactly as the config says it: show it as JSON only."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    stop_signal: str = ""

    def __hash__(self) -> int:
        return hash((self.user, self.env, self.entrypoint, self.cmd))


class ImageConfig(msgspec.Struct, frozen=True):
    """An image configuration; ``diff_ids`` are digests of the uncompressed layers, base first."""

    raw: bytes
    platform: Platform
    diff_ids: tuple[Digest, ...]
    history: tuple[HistoryEntry, ...]
    runtime: RuntimeConfig
    created: str | None

    @classmethod
    def parse(cls, raw: bytes, what: str = "config") -> "ImageConfig":
        """Read verified bytes. Raises InvalidDocument, naming *what* and the field."""
        json = decode(raw, ConfigJson, what)
        if json.rootfs.type not in (None, "layers"):
            raise InvalidDocument(f"{what}: rootfs.type {json.rootfs.type!r} (expected 'layers')")
        if len(json.history or ()) > MAX_HISTORY:
            raise InvalidDocument(
                f"{what}: {len(json.history or ())} steps of history (expected at most {MAX_HISTORY})"
            )
        return cls(
            raw=raw,
            platform=Platform.of(json.os or UNKNOWN, json.architecture or UNKNOWN, json.variant or ""),
            diff_ids=tuple(
                digest(text, f"{what}: rootfs.diff_ids[{number}]")
                for number, text in enumerate(json.rootfs.diff_ids or ())
            ),
            history=tuple(_history(entry or HistoryJson()) for entry in json.history or ()),
            runtime=_runtime(json.config or RuntimeJson()),
            created=word(json.created) or None,
        )


def _history(json: HistoryJson) -> HistoryEntry:
    return HistoryEntry(
        created_by=printable(json.created_by or ""),
        created=word(json.created) or None,
        comment=printable(json.comment or ""),
        empty_layer=bool(json.empty_layer),
    )


def _runtime(json: RuntimeJson) -> RuntimeConfig:
    return RuntimeConfig(
        user=json.user or "",
        env=texts(json.env),
        entrypoint=texts(json.entrypoint),
        cmd=texts(json.cmd),
        working_dir=json.working_dir or "",
        exposed_ports=tuple(json.exposed_ports or ()),
        volumes=tuple(json.volumes or ()),
        labels=labels(json.labels),
        stop_signal=json.stop_signal or "",
    )
