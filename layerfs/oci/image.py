"""An image: the layers of a manifest paired with the diff_ids of its config."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import msgspec

from layerfs.errors import DiffIdMismatch, InvalidDocument, UnsupportedImage
from layerfs.oci import mediatype
from layerfs.oci.config import HistoryEntry, ImageConfig
from layerfs.oci.descriptor import Descriptor
from layerfs.oci.digest import Digest
from layerfs.oci.manifest import Manifest
from layerfs.oci.toc import TocPlace, usable_place


def stack_digest(layers: Iterable[Digest], merger: str = "") -> Digest:
    """Name a stack of layers, base first: SHA-256 over their blob digests, a line each.

    It follows from the manifest alone, and no config can claim another image's stack. What is made of a stack
    for one *merger* alone has another name: a line with that goes before.
    """
    lines = [merger, *map(str, layers)] if merger else map(str, layers)
    return Digest.of("".join(f"{line}\n" for line in lines).encode("ascii"))


def view_digest(keys: Sequence["LayerKey"]) -> Digest:
    """Name what a stack of layers, base first, is shown as: `stack_digest` where none of them is lazy."""
    if not any(key.toc for key in keys):
        return stack_digest(key.digest for key in keys)
    return Digest.of("".join(f"{key.digest} {key.toc or ''}\n" for key in keys).encode("ascii"))


class LayerKey(msgspec.Struct, frozen=True):
    """What decides what a layer is shown as: its blob, and the TOC that it may be read by.

    A blob alone does not: a manifest can claim any TOC for the blob of another image.
    """

    digest: Digest
    """That of the blob."""
    toc: Digest | None = None

    @property
    def name(self) -> str:
        """The key as one path component: ``sha256-<hex>``, and for a lazy layer ``sha256-<hex>.toc-<id>``."""
        return self.digest.name if self.toc is None else f"{self.digest.name}.toc-{self.toc.short_id}"


class ImageLayer(msgspec.Struct, frozen=True):
    """One layer of an image: where its bytes are, and what they must decompress to."""

    number: int
    """0 is the base."""
    descriptor: Descriptor
    diff_id: Digest
    """What the image's config claims that the uncompressed archive hashes to; `require` compares."""

    @property
    def digest(self) -> Digest:
        """Digest of the compressed blob."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """Bytes of the compressed blob."""
        return self.descriptor.size

    @property
    def place(self) -> TocPlace | None:
        """Where the TOC of the layer is; None if it has none that could be used."""
        return usable_place(self.descriptor)

    @property
    def key(self) -> LayerKey:
        """What it is shown as."""
        place = self.place
        return LayerKey(self.digest, None if place is None else place.digest)

    def require_archive(self) -> None:
        """Raise UnsupportedImage if the layer's media type says that it is no tar archive."""
        media_type = self.descriptor.media_type
        if not mediatype.is_archive(media_type):
            raise UnsupportedImage(
                f"layer {self.number} ({self.digest}): {media_type} (expected a tar archive); "
                "it cannot be extracted"
            )

    def require(self, diff_ids: tuple[str, ...]) -> None:
        """Compare *diff_ids*, which a record has computed from the bytes, with the claim of the config.

        Raises DiffIdMismatch: then this image may not use the layer (image-spec, config.md#layer-diffid).
        """
        if str(self.diff_id) not in diff_ids:
            raise DiffIdMismatch(
                f"layer {self.number} ({self.digest}): uncompressed digest is {' or '.join(diff_ids)} "
                f"(expected {self.diff_id}, as the image's config says)"
            )


class Image(msgspec.Struct, frozen=True, dict=True):
    """A manifest with its config; both verified, and agreeing on the number of layers."""

    manifest: Manifest
    config: ImageConfig

    @classmethod
    def of(cls, manifest: Manifest, config: ImageConfig) -> "Image":
        """Pair the two. Raises UnsupportedImage for an artifact, InvalidDocument if they disagree.

        Archives are hashed by sha256, and by the algorithm of their blob's digest: no image has a word in how
        a layer that it shares with others is judged.
        """
        manifest.require_image()
        if len(manifest.layers) != len(config.diff_ids):
            raise InvalidDocument(
                f"manifest {manifest.digest}: {len(manifest.layers)} layers, but its config "
                f"{manifest.config.digest} has {len(config.diff_ids)} rootfs.diff_ids (expected as many)"
            )
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            if diff_id.algorithm not in ("sha256", layer.digest.algorithm):
                raise UnsupportedImage(
                    f"config {manifest.config.digest}: rootfs.diff_ids: {diff_id} (expected sha256, or the "
                    f"algorithm of the layer {layer.digest})"
                )
        return cls(manifest, config)

    @cached_property
    def layers(self) -> tuple[ImageLayer, ...]:
        """The layers, base first."""
        pairs = zip(self.manifest.layers, self.config.diff_ids, strict=True)
        return tuple(ImageLayer(number, blob, diff_id) for number, (blob, diff_id) in enumerate(pairs))

    @cached_property
    def stack(self) -> Digest:
        """The digest of the stack of all layers."""
        return stack_digest(layer.digest for layer in self.layers)

    @cached_property
    def view(self) -> Digest:
        """The digest of what all layers together are shown as."""
        return view_digest([layer.key for layer in self.layers])

    def lower_order(self) -> list[Digest]:
        """Return the layers top first, each once at its topmost place: overlayfs refuses repeats."""
        return list(dict.fromkeys(layer.digest for layer in reversed(self.layers)))

    def commands(self) -> list[HistoryEntry | None]:
        """Return for each layer, base first, the history entry that made it, None if unknown."""
        made = [entry for entry in self.config.history if not entry.empty_layer]
        if len(made) != len(self.layers):
            return [None] * len(self.layers)
        return list(made)
