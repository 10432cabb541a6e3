"""What all layers of an image may cost together: looked at before they are fetched, and after each one.

A layer is looked at once for each image that somebody needs, and once when it arrives, whichever image it
came for: so an image of a thousand layers costs a thousand looks, not a million.
"""

from collections.abc import Sequence
from weakref import WeakValueDictionary

import trio

from layerfs.errors import BudgetExceeded
from layerfs.layer.budgets import Budgets
from layerfs.oci import Digest, Image
from layerfs.store import ImageStorage


class ImageSum:
    """What the layers of one image have so far, each once.

    Those that are here count as extracted, the others with the bytes that the manifest promises.
    """

    def __init__(self, image: Image, budgets: Budgets) -> None:
        self.missing = {layer.digest: layer.size for layer in image.layers}
        self.looking = trio.Lock()
        self._image = image.manifest.digest
        self._budgets = budgets
        self._bytes = sum(self.missing.values())
        self._entries = 0

    def take_in(self, digest: Digest, size: int, entries: int) -> None:
        """Count a layer that is here now as it is, if it did not count so before."""
        promised = self.missing.pop(digest, None)
        if promised is not None:
            self._bytes += size - promised
            self._entries += entries

    def require(self) -> None:
        """Raise BudgetExceeded if this is too much."""
        for found, most, name, what in (
            (self._bytes, self._budgets.max_image_bytes, "max_image_bytes", "bytes"),
            (self._entries, self._budgets.max_image_entries, "max_image_entries", "entries"),
        ):
            if found > most:
                raise BudgetExceeded(
                    f"image {self._image}: {found} {what} in all layers so far ({name} is {most})"
                )


class ImageSums:
    """The sums of the images that somebody needs now; for the tasks of one loop."""

    def __init__(self, storage: ImageStorage, budgets: Budgets) -> None:
        self._storage = storage
        self._budgets = budgets
        self._of_images: WeakValueDictionary[Digest, ImageSum] = WeakValueDictionary()

    async def of(self, image: Image) -> ImageSum:
        """Return the sum of *image*, which all who need it share. Raises BudgetExceeded, StoreError."""
        digest = image.manifest.digest
        found = self._of_images.get(digest)
        if found is None:
            found = self._of_images[digest] = ImageSum(image, self._budgets)
            async with found.looking:
                await self._look([found], list(found.missing))
        async with found.looking:  # the first one looks
            found.require()
        return found

    async def arrived(self, digest: Digest) -> None:
        """Have all images count the layer *digest* as it is here. Raises StoreError."""
        await self._look([each for each in self._of_images.values() if digest in each.missing], [digest])

    async def _look(self, sums: Sequence[ImageSum], digests: Sequence[Digest]) -> None:
        if not sums:
            return
        known = await trio.to_thread.run_sync(lambda: list(map(self._storage.open_layer, digests)))
        for digest, layer in zip(digests, known, strict=True):
            if layer is not None:
                for each in sums:
                    each.take_in(digest, layer.record.layer.tar_size, layer.record.layer.entries)
