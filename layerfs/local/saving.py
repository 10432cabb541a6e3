"""Images as OCI layouts and docker archives: which files they are made of, and those written, each verified.

Sources: image-spec, image-layout.md; what ``docker save`` and ``podman save`` write. The reverse of
`layout` and `dockersave`. What stands in the files comes from the caller.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import SizeMismatch
from layerfs.layer import tarwriter
from layerfs.layer.member import Member, Type
from layerfs.local.dockersave import MANIFEST
from layerfs.local.layout import FULL_NAME, MARKER, REF_NAME
from layerfs.oci import Digest, ImageReference
from layerfs.oci.config import ImageConfig

Write = Callable[[bytes], object]
Opened = Callable[[], AbstractContextManager[Iterator[bytes]]]
"""Opens something to be read in chunks."""

_CHUNK: Final = 1 << 20


class SavedFile(msgspec.Struct, frozen=True):
    """One file of a layout or an archive."""

    name: str
    """Its path."""
    digest: Digest
    """What its bytes must hash to."""
    size: int
    """In bytes."""
    opened: Opened

    @classmethod
    def of(cls, name: str, raw: bytes, digest: Digest | None = None) -> "SavedFile":
        """Make one of bytes that are here."""
        return cls(name, digest or Digest.of(raw), len(raw), lambda: nullcontext(iter((raw,))))

    @classmethod
    def of_file(cls, name: str, digest: Digest, size: int, path: Path) -> "SavedFile":
        """Make one of a file."""
        return cls(name, digest, size, lambda: _read(path))

    def copy(self, write: Write) -> None:
        """Write all bytes. Raises SizeMismatch, DigestMismatch if they are others, OSError."""
        hasher, left = self.digest.hasher(), self.size
        with self.opened() as chunks:
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    break
                hasher.update(chunk)
                write(chunk)
        if left:
            raise SizeMismatch(f"{self.digest}: {'more' if left < 0 else 'fewer'} than {self.size} bytes")
        self.digest.require(Digest.finish(self.digest.algorithm, hasher), str(self.digest))


class Outermost(msgspec.Struct, frozen=True):
    """What an index.json lists: a manifest or an index, and what it is called."""

    digest: Digest
    size: int
    media_type: str
    reference: ImageReference | None
    """None for no name."""


def blob_name(digest: Digest) -> str:
    """Return where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def layout_files(outermost: Outermost) -> list[SavedFile]:
    """Return the files of a layout beside its blobs."""
    entry: dict[str, object] = {
        "mediaType": outermost.media_type,
        "digest": str(outermost.digest),
        "size": outermost.size,
    }
    if outermost.reference is not None and outermost.reference.tag is not None:
        tag = outermost.reference.tag
        entry["annotations"] = {FULL_NAME: str(tag), REF_NAME: tag.name}
    index = {"schemaVersion": 2, "manifests": [entry]}
    marker = msgspec.json.encode({"imageLayoutVersion": "1.0.0"})
    return [SavedFile.of(MARKER, marker), SavedFile.of("index.json", msgspec.json.encode(index))]


def docker_files(config: ImageConfig, digest: Digest, reference: ImageReference | None) -> list[SavedFile]:
    """Return the files of a docker archive beside its layers, which are plain and named by `layer_name`."""
    name = f"{digest.hex}.json"
    tags = [str(reference.tag)] if reference is not None and reference.tag is not None else None
    layers = [layer_name(diff_id) for diff_id in config.diff_ids]
    listed = [{"Config": name, "RepoTags": tags, "Layers": layers}]
    return [SavedFile.of(name, config.raw), SavedFile.of(MANIFEST, msgspec.json.encode(listed))]


def layer_name(diff_id: Digest) -> str:
    """Return where a docker archive has a layer."""
    return f"{diff_id.hex}.tar"


def write_archive(contents: Iterable[SavedFile], write: Write) -> None:
    """Write *contents* as a tar: the same contents always give the same bytes. Raises as `SavedFile.copy`."""
    made: set[str] = set()
    for content in contents:
        for parent in reversed(Path(content.name).parents[:-1]):
            if str(parent) not in made:
                made.add(str(parent))
                write(tarwriter.header(_member(f"{parent}/", Type.DIRECTORY, 0o755, 0)))
        write(tarwriter.header(_member(content.name, Type.FILE, 0o644, content.size)))
        content.copy(write)
        write(tarwriter.padding(content.size))
    write(tarwriter.END)


def write_directory(contents: Iterable[SavedFile], directory: Path) -> None:
    """Write *contents* below an empty *directory*. Raises as `SavedFile.copy`."""
    for content in contents:
        path = directory / content.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", buffering=_CHUNK) as file:
            content.copy(file.write)


def _member(name: str, kind: Type, mode: int, size: int) -> Member:
    return Member(name.encode(), kind, mode, 0, 0, 0, size, size)


@contextmanager
def _read(path: Path) -> Iterator[Iterator[bytes]]:
    with path.open("rb", buffering=0) as file:
        yield iter(lambda: file.read(_CHUNK), b"")
