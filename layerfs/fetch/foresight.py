"""What a look into an image is about to need, started while its documents come. For daemons, who serve looks.

Decides from a manifest alone; what it starts ends itself where nobody comes.
"""

import logging

import trio

from layerfs.fetch.decoding import Decoders
from layerfs.fetch.laziness import Laziness
from layerfs.oci import Manifest, Repository
from layerfs.oci.toc import usable_place

log = logging.getLogger(__name__)


class Foresight:
    """Starts in *nursery* what decodes TOCs."""

    def __init__(self, nursery: trio.Nursery, laziness: Laziness, decoders: Decoders) -> None:
        self._nursery = nursery
        self._laziness = laziness
        self._decoders = decoders

    def see(self, repository: Repository, manifest: Manifest) -> None:
        """Take in that an image of *repository* is about to be here."""
        if self._laziness.allows(repository) and any(map(usable_place, manifest.layers)):
            self._nursery.start_soon(self._warm)

    async def _warm(self) -> None:
        try:
            await self._decoders.warm()
        except (OSError, RuntimeError, MemoryError) as exc:  # of the machine: who needs one is told
            log.debug("no extractor ahead of time: %r", exc)
