"""What programs are told of an image and its files: values, the same in every face."""

import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from layerfs.oci import Digest, HistoryEntry, Image, ImageConfig, ImageReference
from layerfs.oci.image import ImageLayer


class ImageEntry(msgspec.Struct, frozen=True):
    """A file, directory or link of an image, as lstat(2) would show it."""

    path: str
    """Absolute within the image; bytes that are no UTF-8 are as `os.fsdecode` has them."""
    mode: int
    """Kind and permissions, as in `stat`."""
    size: int
    uid: int
    gid: int
    nlink: int
    """1 for a directory of several layers: nobody has counted."""
    rdev: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """The last part of the path; empty for the root."""
        return self.path.rpartition("/")[2]

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


class ImageFacts:
    """What is known of an image once its documents are here."""

    def __init__(self, reference: ImageReference, digest: Digest, documents: Image) -> None:
        self.reference = reference
        """The name that it was asked for by."""
        self.digest = digest
        """What the name means: the digest of a manifest or of an index."""
        self.documents = documents
        """Manifest and config, verified; the manifest's own digest among it."""

    @property
    def config(self) -> ImageConfig:
        """The image's config: how a container starts, what its platform is."""
        return self.documents.config

    @property
    def history(self) -> Sequence[HistoryEntry]:
        """The steps that made it, the first first."""
        return self.documents.config.history

    @property
    def layers(self) -> Sequence[ImageLayer]:
        """Its layers, base first."""
        return self.documents.layers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.reference} {self.digest}>"


class MountFacts:
    """What is known of a mounted root."""

    def __init__(self, path: Path, upper: Path | None) -> None:
        self.path = path
        """Where it is mounted."""
        self.upper = upper
        """The directory that keeps what is written to it; None for a read-only root."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"
