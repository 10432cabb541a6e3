"""Whether the archive of a lazy layer is what its TOC says, once it is whole: compared once, remembered.

Two tellings of one layer that differ are an attack, or a bug of whoever built the image: neither is shown
again.
"""

import logging

import trio

from layerfs.errors import InvalidToc, StoreError
from layerfs.flights import SingleFlight
from layerfs.oci import Digest
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage
from layerfs.store.doubles import remove_doubles
from layerfs.store.likeness import differences

log = logging.getLogger(__name__)


class Agreement:
    """What is known of pairs of a TOC and a blob in *storage*. Comparing runs in *nursery*."""

    def __init__(self, nursery: trio.Nursery, storage: ImageStorage) -> None:
        self._storage = storage
        self._flights: SingleFlight[tuple[Digest, Digest], None] = SingleFlight(nursery)

    def require(self, toc: Digest, blob: Digest) -> None:
        """Raise InvalidToc if the archive in *blob* was found to be another layer than *toc* says."""
        text = self._storage.lazy.tocs.difference(toc, blob)
        if text:
            raise InvalidToc(f"its archive and its TOC {toc} are two layers: {text}")

    async def settle(self, layer: ImageLayer) -> None:
        """Compare *layer*, which is whole, with its TOC, if files of it may have been shown by that.

        Raises InvalidToc if they differ, StoreError.
        """
        place = layer.place
        lazy = self._storage.lazy
        if place is None:
            return
        pair = place.digest, layer.digest
        self.require(*pair)
        if await trio.to_thread.run_sync(lazy.open_skeleton_of, *pair) is None:
            return
        if self._storage.readonly or lazy.tocs.is_equal(*pair):
            return
        await self._flights.do(pair, lambda: self._compare(*pair))
        self.require(*pair)

    async def _compare(self, toc: Digest, blob: Digest) -> None:
        tocs = self._storage.lazy.tocs
        found = await trio.to_thread.run_sync(differences, self._storage, toc, blob)
        if found:
            log.error("%s: not what its TOC %s says: %s", blob, toc, "; ".join(found))
            await trio.to_thread.run_sync(tocs.note_difference, toc, blob, "; ".join(found))
        else:
            await trio.to_thread.run_sync(tocs.note_equal, toc, blob)
            try:
                await trio.to_thread.run_sync(remove_doubles, self._storage, toc)
            except StoreError as exc:  # they cost room and nothing else
                log.info("%s: files that are here twice stay so: %s", blob, exc)
