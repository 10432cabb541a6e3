"""The work of ``layerfs pull``, for the command itself or, in a daemon, for one that asks. Brings trio."""

import logging
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import trio

from layerfs import naming
from layerfs.api.here import kept_whole
from layerfs.api.machinery import fetch_image, heal, made_durable, manifest_of
from layerfs.cli.here import image_of
from layerfs.cli.output import fitting
from layerfs.cli.progress import shown
from layerfs.cli.resumption import Earlier
from layerfs.cli.screen import Screen
from layerfs.cli.several import Unmet, each
from layerfs.cli.whole import fetch_blobs, fetch_documents, images_of
from layerfs.delegation.wire import PullWords
from layerfs.errors import LayerfsError
from layerfs.foreign import encode_json
from layerfs.oci import Descriptor, Digest, Image, ImageReference
from layerfs.oci.image import ImageLayer
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery
    from layerfs.store import ImageStorage

log = logging.getLogger(__name__)


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


class Pull(msgspec.Struct, frozen=True):
    """Fetches images one after another, and says what comes of each."""

    machinery: "Machinery"
    settings: Settings
    words: PullWords
    screen: Screen
    earlier: Earlier
    """What is known of a pull that this one goes on with, or of this one for another to go on with."""

    async def each(self) -> list[Pulled | Unmet]:
        """Pull the images, durably; what cannot be had is complained of. Raises OutputLost, StoreError."""
        numbers = count()

        async def pull_and_tell(text: str) -> Pulled:
            number = next(numbers)
            reference = await trio.to_thread.run_sync(naming.reference, self.settings, text)
            pulled = await self._pull(number, reference)
            if self.words.form != "json":
                self._say(str(pulled.digest) if self.words.form == "digests" else pulled.summary())
            return pulled

        async with made_durable(self.machinery.storage):
            results = await each(self.words.references, pull_and_tell, self.screen.fail)
        if self.words.form == "json":
            self.screen.say(encode_json([one.to_json() for one in results]))
        return results

    def _say(self, text: str) -> None:
        self.screen.say(fitting(text, self.screen.columns(), behind="  "))

    async def _pull(self, number: int, reference: ImageReference) -> Pulled:
        storage, provider = self.machinery.storage, self.machinery.provider
        entry = storage.refs.read(reference)
        begun = self.earlier.begun(number, entry.digest if entry else None)
        target = reference.target
        digest = target if isinstance(target, Digest) else await provider.resolve(target)
        moved_from = begun.before if begun.before != digest else None
        if self.words.form == "lines":
            moved = f" (moved from {moved_from})" if moved_from else ""
            self._say(f"{reference}: {digest}{moved}")
        with kept_whole(storage, digest):
            images, beside = await self._described(reference, digest)
            if reference.digest:  # what a tag means only the registry says, and it was not asked
                storage.refs.keep(reference.repository, digest)
            present = self.earlier.found(begun, digest, _present(storage, images))
            pulled = Pulled(reference, digest, moved_from, images, present)
            await self._fetch(pulled, beside)
        return pulled

    async def _described(
        self, reference: ImageReference, digest: Digest
    ) -> tuple[tuple[Image, ...], list[Descriptor]]:
        """Have the documents; return the images, and the blobs of what is no image."""
        machinery = self.machinery
        if self.words.every:
            whole = await fetch_documents(machinery, reference.repository, digest)
            return images_of(machinery, whole), whole.beside
        manifest = await manifest_of(machinery, reference, digest)
        return (image_of(machinery.storage, manifest, machinery.platform, self.screen.complain),), []

    async def _fetch(self, pulled: Pulled, beside: list[Descriptor]) -> None:
        """Have the stacks of all images, and the blobs of what lies *beside* them."""
        machinery, reference = self.machinery, pulled.reference
        missing = sum(layer.size for layer in pulled.layers if layer.digest not in pulled.present)
        await trio.to_thread.run_sync(machinery.keeper.require_room, str(reference), missing)
        for image in pulled.images:
            silent = self.words.form == "digests"
            journal = machinery.provider.journal
            async with shown(journal, image, pulled.present, silent=silent, screen=self.screen):
                await fetch_image(machinery, reference, image)
        await fetch_blobs(machinery, reference.repository, beside)


def _present(storage: "ImageStorage", images: tuple[Image, ...]) -> frozenset[Digest]:
    blobs = {layer.digest for image in images for layer in image.layers}
    return frozenset(blob for blob in blobs if storage.open_layer(blob) is not None)


async def heal_first(machinery: "Machinery") -> None:
    """Finish first what containers wait for; whoever pulls something else need not fail for it."""
    try:
        if healed := await heal(machinery):
            log.info("%d layers that lazy overlays waited for are here", healed)
    except (LayerfsError, OSError) as exc:
        log.warning("what lazy overlays wait for could not be had: %s (layerfs status --heal)", exc)
