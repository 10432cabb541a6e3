"""What a daemon does, in frozen values: the fetcher counts, the view shows, commands read.

``status.json`` is read by `layerfs status` and by scripts: a field that is here stays, and a new one has a
default, so that a command can read what an older daemon wrote. Times are seconds since the epoch, sizes are
bytes. Requests are not counted: a counter in `fuse_request` is a cost of each, and nothing shows it yet.
"""

from typing import Annotated, Final, Literal

import msgspec

from layerfs.foreign import decode_json, encode_json

_YEAR_4147: Final = 1 << 36
Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=_YEAR_4147)]
"""Seconds since the epoch; bounded, as what a program of another user says must be convertible, too."""

Phase = Literal["queued", "downloading", "extracting", "verifying", "done", "failed"]
"""How far the work on a blob is; what is queued waits for its download, or is here and for an extractor."""


class Underway(msgspec.Struct, frozen=True, kw_only=True):
    """The work on one blob."""

    repository: str
    digest: str
    phase: Phase
    received: Bytes
    """Bytes that are there."""
    size: Bytes
    """Bytes that the image says the blob has."""
    since: Moment


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Something that went wrong, for people who ask later."""

    time: Moment
    what: str
    error: str
    """Name of a class in `layerfs.errors`."""
    message: str


class Fetching(msgspec.Struct, frozen=True, kw_only=True):
    """What a fetcher does and did."""

    waiting: int
    """Callers whose need is not met yet."""
    fetching: tuple[Underway, ...]
    errors: tuple[Failure, ...]
    """The latest ones, the oldest first."""
    fetched: int = 0
    """Blobs that were fetched since the start."""
    fetched_bytes: int = 0
    """Their bytes, compressed."""
    failed: int = 0
    """Failures since the start, those that `errors` has forgotten included."""


class Status(Fetching, frozen=True, kw_only=True):
    """Content of ``.layerfs/status.json``."""

    version: str
    pid: int
    mountpoint: str
    store: str
    platform: str
    offline: bool

    def encode(self) -> bytes:
        """Return the file."""
        return encode_json(self).encode() + b"\n"


def parse_status(raw: bytes) -> Status:
    """Read the file. Raises msgspec.DecodeError."""
    return decode_json(raw, Status)
