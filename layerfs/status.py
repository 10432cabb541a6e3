"""What a daemon does, in frozen values: the fetcher counts, the view shows, commands read.

``status.json`` is read by `layerfs status` and by scripts: a field that is here stays, and a new one has a
default, so that a command can read what an older daemon wrote. Times are seconds since the epoch, sizes are
bytes. Counts begin with the daemon.
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


_STEP: Final = 4096


def padded(text: bytes) -> bytes:
    """Return *text* as a line that spaces fill up to some size.

    What a daemon counts changes by being looked at, and tar(1) complains of a file that grows meanwhile.
    """
    return text + b" " * (-(len(text) + 1) % _STEP) + b"\n"


EventKind = Literal["start", "fetch", "failure", "evict"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a daemon did, or that befell it."""

    number: int
    """Counted by each daemon, the first is 1: whoever looks again knows what is new."""
    time: Moment
    kind: EventKind
    what: str
    """The store for a start and an eviction; else the image or the blob."""
    size: Bytes = 0
    """Bytes of a blob that was fetched, or that went."""
    error: str = ""
    """Name of a class in `layerfs.errors`, of a failure."""
    message: str = ""


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``.layerfs/events.json``: the latest events of a daemon, the oldest first."""

    started: Moment
    """When the daemon began: another one counts anew."""
    events: tuple[Event, ...]

    def encode(self) -> bytes:
        """Return the file."""
        return padded(encode_json(self).encode())


def parse_events(raw: bytes) -> Events:
    """Read the file. Raises msgspec.DecodeError."""
    return decode_json(raw, Events)


BUCKETS: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0)
"""Seconds; upper bounds of what `Requests.waits` tells apart."""


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel asked of a mount, of one operation."""

    operation: str
    """``lookup``, ``open`` and so on, as libfuse calls them."""
    asked: int
    failed: dict[str, int] = {}
    """How many were answered with an errno, by its name."""
    waits: tuple[int, ...] = ()
    """How many could not be answered at once: for each of `BUCKETS` those that took so long at most, but
    longer than the one before it; then the rest."""
    seconds: float = 0.0
    """What those took together."""


LayerLevel = Literal["toc", "partly", "whole"]
"""How much of a layer is wanted: the list of its files, some of them, all."""
LayerResult = Literal["done", "refused", "failed"]
"""What comes of it; what is refused cannot be lazy, and is fetched whole instead."""


class LayerCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many layers of one level came to one end."""

    level: LayerLevel
    result: LayerResult
    count: int


Worker = Literal["extractor", "downloader"]
"""The kinds of processes that a daemon has work for it."""


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
    failures: dict[str, int] = {}
    """The same by the name of a class in `layerfs.errors`."""
    received: dict[str, int] = {}
    """Bytes that came over the network, compressed, by who sent them: `layerfs.registry.traffic`."""
    fallbacks: int = 0
    """How often the next server was asked because a mirror gave nothing."""
    layers: tuple[LayerCount, ...] = ()
    rung: int = 0
    """Files of lazy layers that containers opened before they were here (``.layerfs/bell``)."""
    deaths: dict[str, int] = {}
    """Processes that ended by themselves, by `Worker`."""


class FilesHere(msgspec.Struct, frozen=True, kw_only=True):
    """What is here of the files of a lazy layer, equal ones counted once."""

    files: Bytes
    bytes: Bytes
    of_files: Bytes
    of_bytes: Bytes


class LookedAt(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that was looked at before it was here whole, and how much of it is."""

    repository: str
    """Empty if this daemon was not asked for it: an earlier one was."""
    digest: str
    toc: str | None
    state: Literal["fetched", "partial", "toc", "absent"]
    """As in ``layer.json``."""
    here: FilesHere | None = None
    """None for what is whole or not lazy, and until somebody has counted."""
    whole_because: str | None = None
    """Why it is not lazy; None if it is, or may be."""


class Status(Fetching, frozen=True, kw_only=True):
    """Content of ``.layerfs/status.json``."""

    version: str
    pid: int
    mountpoint: str
    store: str
    platform: str
    offline: bool
    started: Moment = 0.0
    requests: tuple[Requests, ...] = ()
    removed: Bytes = 0
    """Bytes that went to keep the store within its limits."""
    evicted: dict[str, int] = {}
    """Things among them that images need, by kind: ``layer``, ``blob``, ``file`` of lazy layers and so on."""
    store_size: Bytes = 0
    """What the store takes, as of the last look; 0 where nobody has looked, as it has no limits."""
    disk_size: Bytes = 0
    """How large the filesystem is that the store is on."""
    disk_free: Bytes = 0
    """How many of these bytes an ordinary user may write."""
    looked_at: tuple[LookedAt, ...] = ()
    """Layers that were looked at before they were here whole, the latest last."""

    def encode(self) -> bytes:
        """Return the file."""
        return padded(encode_json(self).encode())


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What a server of a store does and did, for `layerfs.metrics`."""

    process: tuple[str, str, float] | None = None
    """Its version, its platform and when it began; None beside a mount, which says that."""
    fetching: Fetching | None = None
    """What it fetches for others; None if it does not, or stands beside a mount that does."""
    connections: int
    refused: int
    """Connections that were one too many."""
    answers: dict[tuple[str, int], int]
    """By kind of what was asked for, and status."""
    sent: int
    """Bytes of bodies."""


def parse_status(raw: bytes) -> Status:
    """Read the file. Raises msgspec.DecodeError."""
    return decode_json(raw, Status)
