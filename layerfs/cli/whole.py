"""Everything below a digest: all platforms of an index, with what is listed beside them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from layerfs.errors import InvalidDocument
from layerfs.needs import BlobNeed
from layerfs.oci import Descriptor, Digest, Image, ImageReference, Index, Manifest, Repository
from layerfs.oci.descent import MAX_INDEX_DEPTH
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery


class Whole(msgspec.Struct, frozen=True):
    """All documents below a digest, the outermost first; each is in the store, and so are their configs."""

    documents: tuple[Manifest | Index, ...]

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests, of images and of artifacts: attestations for instance."""
        return [one for one in self.documents if isinstance(one, Manifest)]

    def inside_out(self) -> list[Manifest | Index]:
        """Return the documents, each behind what it names."""
        here = {one.digest: one for one in self.documents}
        found: dict[Digest, Manifest | Index] = {}

        def add(document: Manifest | Index) -> None:
            below = document.manifests if isinstance(document, Index) else ()
            for entry in below:
                if entry.digest in here and entry.digest not in found:
                    add(here[entry.digest])
            found[document.digest] = document

        add(self.documents[0])
        return list(found.values())

    @property
    def configs(self) -> dict[Digest, Descriptor]:
        """The configs of all manifests, each once."""
        return {one.config.digest: one.config for one in self.manifests}

    @property
    def beside(self) -> list[Descriptor]:
        """The blobs of manifests that are no images."""
        return [layer for one in self.manifests if not one.is_image for layer in one.layers]

    @property
    def blobs(self) -> dict[Digest, Descriptor]:
        """The layers of all manifests, each once."""
        return {layer.digest: layer for one in self.manifests for layer in one.layers}


async def fetch_documents(machinery: "Machinery", repository: Repository, digest: Digest) -> Whole:
    """Have *digest* and every document that it leads to. Raises InvalidDocument, LayerfsError."""
    found: dict[Digest, Manifest | Index] = {}
    level = [digest]
    for _ in range(MAX_INDEX_DEPTH + 1):
        below: list[Digest] = []
        for each in dict.fromkeys(level):
            if each not in found:
                found[each] = document = await machinery.provider.document(repository, each)
                below += [entry.digest for entry in document.manifests] if isinstance(document, Index) else []
        level = below
    if level:
        raise InvalidDocument(f"index {digest}: more than {MAX_INDEX_DEPTH} indexes inside each other")
    return Whole(tuple(found.values()))


def images_of(machinery: "Machinery", whole: Whole) -> tuple[Image, ...]:
    """Pair the manifests of images with their configs. Raises InvalidDocument, UnsupportedImage."""
    configs = machinery.storage.load_config
    return tuple(Image.of(one, configs(one.config.digest)) for one in whole.manifests if one.is_image)


async def fetch_blobs(machinery: "Machinery", repository: Repository, blobs: Iterable[Descriptor]) -> None:
    """Have blobs in the store, verified; nothing is extracted. Raises the first error once all have ended."""
    from layerfs.fetch.tasks import all_of

    obtain = machinery.provider.obtain
    await all_of(*(partial(obtain, BlobNeed(repository, blob)) for blob in blobs))


async def fetch_whole(
    machinery: "Machinery",
    reference: ImageReference,
    digest: Digest,
    *,
    every: bool,
    needed: Callable[[Descriptor], bool] = lambda _: True,
) -> Whole:
    """Have the documents and blobs of an image in the store, for one platform or *every* one.

    Of blobs those that are *needed*. Nothing is extracted; what has to be fetched is said on standard error.
    Raises LayerfsError.
    """
    from layerfs.api.machinery import manifest_of

    if every:
        whole = await fetch_documents(machinery, reference.repository, digest)
    else:
        whole = Whole((await manifest_of(machinery, reference, digest),))
    storage = machinery.storage
    blobs = [blob for blob in whole.blobs.values() if needed(blob)]
    missing = [blob for blob in blobs if storage.open_blob(blob.digest) is None]
    if missing:
        trees = sum(storage.has_tree(blob.digest) for blob in missing)
        kept = f" ({trees} of them are in the store as directories alone)" if trees else ""
        size = human_size(sum(blob.size for blob in missing))
        click.echo(f"{reference}: fetching {len(missing)} of {len(blobs)} blobs, {size}{kept}", err=True)
        await fetch_blobs(machinery, reference.repository, missing)
    return whole
