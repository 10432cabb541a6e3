"""``layerfs pull``: everything of an image into the store, with progress on a terminal."""

import logging
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from layerfs import naming
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.output import print_json, print_text
from layerfs.cli.several import Unmet, each, end
from layerfs.errors import LayerfsError, UsageError
from layerfs.oci import Descriptor, Digest, Image, ImageReference
from layerfs.oci.image import ImageLayer
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery
    from layerfs.store import ImageStorage

log = logging.getLogger(__name__)

Form = Literal["lines", "digests", "json"]
"""What standard output gets."""


class Pulled(msgspec.Struct, frozen=True):
    """What one pull did."""

    reference: ImageReference
    digest: Digest
    moved_from: Digest | None
    """What the tag was pinned to before, if that was something else."""
    images: tuple[Image, ...]
    """One, or those for all platforms."""
    present: frozenset[Digest]
    """Layers that were in the store already."""

    @property
    def layers(self) -> list[ImageLayer]:
        """The layers of all images, each once."""
        return list({layer.digest: layer for image in self.images for layer in image.layers}.values())

    def summary(self) -> str:
        """Return the line for people."""
        fetched = [layer for layer in self.layers if layer.digest not in self.present]
        size = human_size(sum(layer.size for layer in fetched))
        platforms = f"{len(self.images)} platforms, " if len(self.images) != 1 else ""
        return f"{self.reference}: {platforms}{len(self.layers)} layers, {len(fetched)} fetched ({size})"

    def to_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        return {
            "reference": str(self.reference),
            "digest": str(self.digest),
            "moved_from": str(self.moved_from) if self.moved_from else None,
            "platforms": [
                {"platform": str(image.config.platform), "manifest": str(image.manifest.digest)}
                for image in self.images
            ],
            "layers": [
                {
                    "digest": str(layer.digest),
                    "size": layer.size,
                    "fetched": layer.digest not in self.present,
                }
                for layer in self.layers
            ],
        }


@app.verb(epilog="Example: layerfs pull docker.io/library/alpine:3.20 && layerfs images")
@options.configured(*options.FILLING)
def pull(
    settings: Settings,
    references: Annotated[
        list[str],
        takes.argument(metavar="REFERENCE", help="Images to fetch.", shell_complete=complete_reference),
    ],
    quiet: Annotated[bool, takes.option("--quiet", "-q", help="Print the digests only.")] = False,
    all_platforms: Annotated[
        bool, takes.option("--all-platforms", help="Fetch all platforms, and what is listed beside.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Download, verify and extract all layers of images.

    The registry is asked anew what a tag names. With a digest the image is kept by its digest; a tag beside
    it names what it named before.

    Where one of several cannot be had, the others are fetched, and the exit code is that of the first error.
    With --json each has a result; that of an error has error and message, as in layerfs status. Progress is
    on standard error.

    What lazy overlays wait for whose daemon is gone comes first: see layerfs status --heal.

    Ctrl-C keeps what was downloaded; the next pull goes on behind it.
    """
    from layerfs.cli.early import extractors, is_unknown

    if quiet and as_json:
        raise UsageError("pull: --quiet and --json (expected one of the two)")
    form: Form = "json" if as_json else "digests" if quiet else "lines"
    with extractors(needed=not settings.offline and is_unknown(settings, references)) as pool:
        from layerfs.cli.running import with_provider  # brings trio and HTTP, while one starts

        work = partial(_pull_each, settings=settings, references=references, form=form, every=all_platforms)
        results = with_provider(settings, work, pool=pool)
    if as_json:
        print_json([one.to_json() for one in results])
    end(results)


async def _heal(machinery: "Machinery") -> None:
    """Finish first what containers wait for; whoever pulls something else need not fail for it."""
    from layerfs.api.machinery import heal

    try:
        if healed := await heal(machinery):
            log.info("%d layers that lazy overlays waited for are here", healed)
    except (LayerfsError, OSError) as exc:
        log.warning("what lazy overlays wait for could not be had: %s (layerfs status --heal)", exc)


async def _pull_each(
    machinery: "Machinery", settings: Settings, references: list[str], form: Form, *, every: bool
) -> list[Pulled | Unmet]:
    """Pull the images one by one and print what came of each."""
    from layerfs.api.machinery import made_durable

    async def pull_and_tell(text: str) -> Pulled:
        pulled = await _pull(machinery, naming.reference(settings, text), form, every=every)
        if form != "json":
            print_text(str(pulled.digest) if form == "digests" else pulled.summary(), behind="  ")
        return pulled

    await _heal(machinery)
    async with made_durable(machinery.storage):
        return await each(references, pull_and_tell)


async def _pull(machinery: "Machinery", reference: ImageReference, form: Form, *, every: bool) -> Pulled:
    from layerfs.api.here import kept_whole
    from layerfs.api.machinery import manifest_of
    from layerfs.cli.here import image_of
    from layerfs.cli.whole import fetch_documents, images_of

    storage, provider = machinery.storage, machinery.provider
    before = storage.refs.read(reference)
    target = reference.target
    digest = target if isinstance(target, Digest) else await provider.resolve(target)
    moved_from = before.digest if before and before.digest != digest else None
    if form == "lines":
        moved = f" (moved from {moved_from})" if moved_from else ""
        print_text(f"{reference}: {digest}{moved}", behind="  ")
    with kept_whole(storage, digest):
        if every:
            whole = await fetch_documents(machinery, reference.repository, digest)
            images, beside = images_of(machinery, whole), whole.beside
        else:
            manifest = await manifest_of(machinery, reference, digest)
            images, beside = (image_of(storage, manifest, machinery.platform),), []
        if reference.digest:  # what a tag means only the registry says, and it was not asked
            storage.refs.keep(reference.repository, digest)
        pulled = Pulled(reference, digest, moved_from, images, _present(storage, images))
        await _fetch(machinery, pulled, beside, silent=form == "digests")
    return pulled


def _present(storage: "ImageStorage", images: tuple[Image, ...]) -> frozenset[Digest]:
    blobs = {layer.digest for image in images for layer in image.layers}
    return frozenset(blob for blob in blobs if storage.open_layer(blob) is not None)


async def _fetch(machinery: "Machinery", pulled: Pulled, beside: list[Descriptor], *, silent: bool) -> None:
    """Have the stacks of all images, and the blobs of what lies *beside* them."""
    import trio

    from layerfs.api.machinery import fetch_image
    from layerfs.cli.progress import shown
    from layerfs.cli.whole import fetch_blobs

    reference = pulled.reference
    missing = sum(layer.size for layer in pulled.layers if layer.digest not in pulled.present)
    await trio.to_thread.run_sync(machinery.keeper.require_room, str(reference), missing)
    for image in pulled.images:
        async with shown(machinery.provider.journal, image, pulled.present, silent=silent):
            await fetch_image(machinery, reference, image)
    await fetch_blobs(machinery, reference.repository, beside)
