"""What a worker is told, and what it answers."""

import msgspec

from layerfs.layer.budgets import Budgets
from layerfs.layer.record import Extraction, OwnerKind
from layerfs.layer.toc import Content
from layerfs.oci.toc import TocPlace


class ExtractJob(msgspec.Struct, frozen=True, kw_only=True, tag="job"):
    """Extract one blob into one empty directory."""

    blob: str
    """Path of the blob. This one and `target` must be UTF-8: a job travels as JSON."""
    target: str
    """Path of an existing, empty, private directory: it becomes the root of the layer."""
    digest: str
    """What the blob must hash to."""
    size: int
    """What the blob must measure, in bytes; -1 if unknown."""
    media_type: str = ""
    """What the manifest promised; a disagreement is logged, the bytes decide."""
    owner: OwnerKind = "root"
    """Who writes: decides which metadata can be set and the name of the opaque attribute."""
    whiteout_devices: bool = True
    """Whether the filesystem takes 0:0 character devices and overlay attributes (probed by the store)."""
    marker_names: bool = True
    """Whether it takes names that begin with ``.wh.``; else they are those of `layerfs.layer.escaping`."""
    complete: bool = True
    """False while the blob still grows: `Grown` messages follow, then `Ended`."""
    budgets: Budgets = Budgets()


class SkeletonJob(msgspec.Struct, frozen=True, kw_only=True, tag="skeleton"):
    """Make the skeleton of one layer in one empty directory, from its TOC alone.

    The answers are those to an `ExtractJob`. `Extraction.digest` is then the digest of the TOC, and a fifth
    table follows the four: `layerfs.layer.contents`.
    """

    toc: str
    """Path of the TOC's bytes as they are in the blob. The three paths must be UTF-8."""
    split: str = ""
    """Path of tar-split's; empty if there is none."""
    place: TocPlace
    """Where in the blob they are, and what the TOC must hash to."""
    blob_size: int
    target: str
    """As in `ExtractJob`, and so are the others below."""
    owner: OwnerKind = "root"
    whiteout_devices: bool = True
    budgets: Budgets = Budgets()

    @property
    def digest(self) -> str:
        """What the job is about."""
        return str(self.place.digest)


class PartHere(msgspec.Struct, frozen=True):
    """Bytes of a blob that are here: those from *start* to before *end*."""

    start: int
    end: int
    path: str


class UnpackJob(msgspec.Struct, frozen=True, kw_only=True, tag="unpack"):
    """Say the bytes of files, one after another, whose pieces lie in the parts *held* of a blob.

    They travel as `Listed`, without those of holes; the answer is `Unpacked` or `Failed`: then those of the
    files before the one that it is about have come.
    """

    digest: str
    """That of the blob: error texts name it."""
    contents: tuple[Content, ...]
    held: tuple[PartHere, ...]


TreeJob = ExtractJob | SkeletonJob
"""One whose answer is `Done` or `Failed`."""
Job = ExtractJob | SkeletonJob | UnpackJob


class Grown(msgspec.Struct, frozen=True, tag="grown"):
    """The growing blob now holds *size* bytes that may be read."""

    size: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The growing blob is complete, *size* bytes long."""

    size: int


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """The download failed: give up this job, remove nothing, answer `Failed`."""


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """The next bytes of the record's tables (`layerfs.layer.tables`), all of which come before the answer.

    The worker passes the pieces on as they are: nobody holds all of them.
    """

    piece: bytes


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The tree is complete and both digests are computed; the blob's equals the job's."""

    extraction: Extraction
    warnings: tuple[str, ...] = ()
    last: bool = False
    """The worker has grown too large: it takes no other job, and is to be closed."""


class Unpacked(msgspec.Struct, frozen=True, tag="unpacked"):
    """All bytes of the file have been said."""

    warnings: tuple[str, ...] = ()
    last: bool = False
    """As in `Done`."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The job failed; the target holds rubbish that the caller removes."""

    error: str
    """Name of a class in `layerfs.errors`."""
    message: str
    warnings: tuple[str, ...] = ()
    last: bool = False
    """As in `Done`."""
