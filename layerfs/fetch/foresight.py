"""What a look into an image is about to need, started while its documents come. For daemons, who serve looks.

Decides from a manifest alone; what it starts ends itself where nobody comes.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from layerfs.fetch.decoding import Decoders
from layerfs.fetch.laziness import Laziness
from layerfs.oci import Descriptor, Manifest, Repository
from layerfs.oci.toc import usable_place

Begin = Callable[[Repository, Descriptor], Awaitable[None]]

log = logging.getLogger(__name__)


class Foresight:
    """Starts in *nursery* what decodes TOCs, and asks for these."""

    def __init__(self, nursery: trio.Nursery, laziness: Laziness, decoders: Decoders, begin: Begin) -> None:
        """*begin* asks for what lists the files of a layer."""
        self._begin = begin
        self._nursery = nursery
        self._laziness = laziness
        self._decoders = decoders

    def see(self, repository: Repository, manifest: Manifest, into: bool) -> None:
        """Take in that an image of *repository* is about to be here; *into*, to look into its layers."""
        lazy = [layer for layer in manifest.layers if usable_place(layer)]
        if not lazy or not self._laziness.allows(repository):
            return
        self._nursery.start_soon(self._warm)
        for layer in {one.digest: one for one in lazy}.values() if into else ():
            self._nursery.start_soon(self._begin, repository, layer)

    async def _warm(self) -> None:
        try:
            await self._decoders.warm()
        except (OSError, RuntimeError, MemoryError) as exc:  # of the machine: who needs one is told
            log.debug("no extractor ahead of time: %r", exc)
