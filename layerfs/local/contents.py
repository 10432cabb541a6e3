"""What a local source holds, whatever its format: images by name, bytes by digest. Values and one rule.

Made by the formats (`layout`, `dockersave`, `skopeodir`), read by `origin` and the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from layerfs.errors import NotFound, UsageError
from layerfs.local.name import SourceName, full_name, made_up_name
from layerfs.local.pieces import Piece
from layerfs.oci import Digest, Tag


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image or index of a source."""

    digest: Digest
    names: tuple[str, ...]
    """As the source has them: tags, full names, or none."""

    def tag(self, source: SourceName) -> Tag:
        """Return the full name that the image carries, else one made of the name of the source."""
        carried = (full_name(name) for name in self.names)
        found = next((tag for tag in carried if tag is not None), None)
        return found or made_up_name(source.path, self.names)


class Contents(Protocol):
    """A source that was opened."""

    @property
    def images(self) -> Sequence[SourceImage]:
        """All images, in the order of the source."""

    def find(self, digest: Digest) -> Piece | bytes | None:
        """Return where the bytes of a document or blob are, unverified; None if they are not here.

        Raises Denied, InvalidArchive, StoreError.
        """


def choose(images: Sequence[SourceImage], source: SourceName) -> SourceImage:
    """Return the image that *source* means. Raises NotFound, and UsageError if it could be several."""
    wanted = source.image
    if not wanted:
        if len(images) == 1:
            return images[0]
        if not images:
            raise NotFound(f"{source}: holds no image")
        raise UsageError(
            f"{source}: holds {len(images)} images; choose one: {source}:NAME with {_listed(images)}"
        )
    if wanted.startswith("@") and wanted[1:].isdecimal():
        number = int(wanted[1:])
        if number < len(images):
            return images[number]
    for named in (_exactly, _as_reference, _by_tag):
        found = [image for image in images if any(named(name, wanted) for name in image.names)]
        if found:
            return found[0]
    raise NotFound(f"{source}: no such image (it holds {_listed(images)})")


def _exactly(name: str, wanted: str) -> bool:
    return name == wanted


def _as_reference(name: str, wanted: str) -> bool:
    tag = full_name(name)
    return tag is not None and tag == full_name(wanted)


def _by_tag(name: str, wanted: str) -> bool:
    tag = full_name(name)
    return tag is not None and tag.name == wanted


def _listed(images: Sequence[SourceImage]) -> str:
    names = [name for image in images for name in image.names[:1]] or [f"@0 to @{len(images) - 1}"]
    text = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return "".join(char if char.isprintable() else "?" for char in text)
