"""What the downloader process is told, and what it answers: values, and their way through a socket.

A message is a length of four bytes, little-endian, and that many bytes of JSON. Spoken by `remote`, in the
daemon, and `downloader`.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from layerfs.errors import WorkerDied
from layerfs.extract import frames
from layerfs.extract.frames import LENGTH
from layerfs.oci import Descriptor, Digest, Repository

_LIMIT: Final = 64 << 20
"""Bytes of a message; the longest carries a manifest of 4 MiB as base64."""


class Setup(msgspec.Struct, frozen=True, kw_only=True, tag="setup"):
    """The first message: what of `layerfs.registry.RegistrySettings` and logging the user decided."""

    insecure: tuple[str, ...]
    offline: bool
    authfile: str | None
    """As `layerfs.layer.names.to_text` says."""
    log_level: int


class Resolve(msgspec.Struct, frozen=True, tag="resolve"):
    """Say what a tag names now: `Resolved` answers."""

    number: int
    repository: Repository
    tag: str


class FetchManifest(msgspec.Struct, frozen=True, tag="manifest"):
    """Fetch a manifest or index: `Document` answers."""

    number: int
    repository: Repository
    digest: Digest
    expected_size: int | None


class FetchConfig(msgspec.Struct, frozen=True, tag="config"):
    """Fetch a config: `Document` answers."""

    number: int
    repository: Repository
    descriptor: Descriptor


class Receive(msgspec.Struct, frozen=True, tag="receive"):
    """Write a blob from *offset* on into the file that comes with this message.

    The file's descriptor comes first, then one that holds its lock. `Arrived` says how far it is, at last
    `Received` answers.
    """

    number: int
    repository: Repository
    descriptor: Descriptor
    offset: int
    name: str
    """Of the file, for error texts."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody wants that answer any more: stop, then say `Cancelled`."""

    number: int


class Resolved(msgspec.Struct, frozen=True, tag="resolved"):
    """What a tag names now, with the bytes of the document where they were at hand."""

    number: int
    digest: Digest
    raw: bytes | None


class Document(msgspec.Struct, frozen=True, tag="document"):
    """A verified document."""

    number: int
    raw: bytes
    media_type: str = ""


class Arrived(msgspec.Struct, frozen=True, tag="arrived"):
    """The file now holds the first *received* bytes of the blob. Not an answer: more will come."""

    number: int
    received: int


class Received(msgspec.Struct, frozen=True, tag="received"):
    """The blob has ended; nothing will be written any more."""

    number: int


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """It was stopped; nothing will be written any more."""

    number: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Why there is no answer."""

    number: int
    error: str
    """Name of a class in `layerfs.errors`."""
    message: str


class Logged(msgspec.Struct, frozen=True, tag="logged"):
    """A line for the daemon's log."""

    logger: str
    level: int
    text: str


Question = Resolve | FetchManifest | FetchConfig | Receive
Answer = Resolved | Document | Received | Cancelled | Failed

to_downloader: Final = msgspec.json.Decoder(Setup | Resolve | FetchManifest | FetchConfig | Receive | Cancel)
from_downloader: Final = msgspec.json.Decoder(
    Resolved | Document | Received | Cancelled | Failed | Arrived | Logged
)


def frame(message: msgspec.Struct) -> bytes:
    """Return *message* as it travels."""
    return frames.frame(msgspec.json.encode(message))


class Unframer:
    """Bytes as they come to whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take *data*, and yield the body of each message that is whole. Raises WorkerDied."""
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer)
            if size > _LIMIT:
                raise WorkerDied(f"downloader: a message of {size} bytes (expected at most {_LIMIT})")
            end = LENGTH.size + size
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield body
