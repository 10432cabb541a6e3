"""What a local source holds, whatever its format: images by name, bytes by digest. Values and one rule.

Made by the formats (`layout`, `dockersave`, `skopeodir`), read by `origin` and the command line.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from layerfs.errors import NotFound, PlatformMissing, UsageError
from layerfs.foreign import NAME, printable
from layerfs.local.name import SourceName, full_name, made_up_name
from layerfs.local.pieces import FilePart
from layerfs.oci import Digest, Platform, Tag


class SourceImage(msgspec.Struct, frozen=True):
    """One image or index of a source."""

    digest: Digest
    names: tuple[str, ...]
    """As the source has them, made printable: tags, full names, or none."""
    platform: Platform | None = None
    """Where the source says it: images for several platforms may stand side by side under one name."""
    artifact_type: str = ""
    """What it is, where the source says that it is no image."""

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

    def find(self, digest: Digest) -> FilePart | bytes | None:
        """Return where the bytes of a document or blob are, unverified; None if they are not here.

        Raises Denied, InvalidArchive, StoreError.
        """


def choose(images: Sequence[SourceImage], source: SourceName, wanted: Platform) -> SourceImage:
    """Return the image that *source* means, of several for different platforms that for *wanted*.

    Raises NotFound, PlatformMissing, and UsageError if it could be several.
    """
    if not images:
        raise NotFound(f"{source}: holds no image")
    if source.image:
        return _of_platform(_named(images, source), source, wanted)
    meant = [image for image in images if not image.artifact_type] or images
    if len({image.names for image in meant}) > 1 or not _differ_in_platform(meant):
        raise UsageError(
            f"{source}: holds {len(images)} images; choose one: {source}:NAME with {_listed(images)}"
        )
    return _of_platform(meant, source, wanted)


def by_name(images: Sequence[SourceImage], source: SourceName, wanted: Platform) -> dict[Tag, SourceImage]:
    """Return all images of *source* by their full names; each image has one, each name the one for *wanted*.

    Where several have no name, the later ones are called by their number. Raises PlatformMissing.
    """
    found: dict[Tag, list[SourceImage]] = {}
    for number, image in enumerate(images):
        tag = image.tag(source)
        if tag in found and not _differ_in_platform([*found[tag], image]):
            tag = made_up_name(source.path, (f"image-{number}",))
        found.setdefault(tag, []).append(image)
    return {tag: _of_platform(meant, source, wanted) for tag, meant in found.items()}


def _named(images: Sequence[SourceImage], source: SourceName) -> Sequence[SourceImage]:
    wanted = source.image
    if wanted.startswith("@") and wanted[1:].isdecimal():
        number = int(wanted[1:])
        if number < len(images):
            return [images[number]]
    for named in (_exactly, _as_reference, _by_tag):
        found = [image for image in images if any(named(name, wanted) for name in image.names)]
        if found:
            return found if _differ_in_platform(found) else found[:1]
    raise NotFound(f"{source}: no such image (it holds {_listed(images)})")


def _of_platform(images: Sequence[SourceImage], source: SourceName, wanted: Platform) -> SourceImage:
    """Choose among images that differ in their platform alone; one that has no other beside it is meant."""
    if len(images) == 1:
        return images[0]
    by_platform = {image.platform: image for image in images}
    for candidate in wanted.candidates():
        if candidate in by_platform:
            return by_platform[candidate]
    have = ", ".join(map(str, by_platform))
    raise PlatformMissing(
        f"{source}: no image for {wanted} (it has: {have}); choose one of them with --platform"
    )


def _differ_in_platform(images: Sequence[SourceImage]) -> bool:
    platforms = {image.platform for image in images}
    return len(images) == 1 or (len(platforms) == len(images) and None not in platforms)


def _exactly(name: str, wanted: str) -> bool:
    return name == printable(wanted, NAME)


def _as_reference(name: str, wanted: str) -> bool:
    tag = full_name(name)
    return tag is not None and tag == full_name(wanted)


def _by_tag(name: str, wanted: str) -> bool:
    tag = full_name(name)
    return tag is not None and tag.name == wanted


def _listed(images: Sequence[SourceImage]) -> str:
    """Return what to write behind the source for each image; those without a name have a number."""
    names = [next(iter(image.names), f"@{number}") for number, image in enumerate(images)]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
