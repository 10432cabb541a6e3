"""What a daemon says of itself: put together from those who count, for the view to show."""

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from layerfs import __version__
from layerfs.catalog.state import layer_status
from layerfs.errors import StoreError
from layerfs.fetch.fetcher import Fetcher
from layerfs.gc.keeper import Keeper
from layerfs.metrics import exposition
from layerfs.oci.image import LayerKey
from layerfs.status import FilesHere, LookedAt, Requests, Status
from layerfs.store import ImageStorage
from layerfs.supervision import InForce

_LISTED_MAX: Final = 100
"""Skeletons of the store that are told of although nobody has asked this daemon for them."""


class Reporter(msgspec.Struct, frozen=True):
    """What the view asks for ``.layerfs/status.json`` and ``.layerfs/metrics``."""

    storage: ImageStorage
    fetcher: Fetcher
    keeper: Keeper
    in_force: InForce
    mountpoint: Path
    requests: Callable[[], tuple[Requests, ...]]

    def read(self) -> bytes:
        """Return the status as of now."""
        return msgspec.structs.replace(self._about(), looked_at=self._looked_at()).encode()

    def events(self) -> bytes:
        """Return the latest events."""
        return self.fetcher.journal.happening.latest().encode()

    def metrics(self) -> bytes:
        """Return the metrics as of now."""
        return exposition(self._about())

    def _looked_at(self) -> tuple[LookedAt, ...]:
        """Return the layers that were looked at, and those of which an earlier daemon left some files."""
        found: dict[LayerKey, tuple[str, str]] = {}
        with suppress(OSError, StoreError):
            for toc, blob in islice(self.storage.lazy.listed(), _LISTED_MAX):
                if self.storage.open_layer(blob) is None:
                    found[LayerKey(blob, toc)] = "", ""
        for repository, layer in self.fetcher.looked_at.latest():
            found.pop(layer.key, None)
            found[layer.key] = str(repository), self.fetcher.why_whole(repository, layer)
        return tuple(self._look(key, *about) for key, about in found.items())

    def _look(self, key: LayerKey, repository: str, why_whole: str) -> LookedAt:
        status = layer_status(self.storage, key, self.storage.lazy.last_count)
        return LookedAt(
            repository=repository,
            digest=str(key.digest),
            toc=None if key.toc is None else str(key.toc),
            state=status.state,
            here=None if status.here is None else FilesHere(**msgspec.structs.asdict(status.here)),
            whole_because=why_whole or None,
        )

    def _about(self) -> Status:
        size, free = self.keeper.disk()
        return Status(
            version=__version__,
            pid=os.getpid(),
            mountpoint=str(self.mountpoint),
            store=str(self.in_force.settings.store),
            platform=str(self.in_force.settings.preferred_platform),
            offline=self.in_force.settings.offline,
            started=self.fetcher.journal.happening.started,
            requests=self.requests(),
            removed=self.keeper.freed,
            evicted=dict(self.keeper.evicted),
            store_size=self.keeper.size,
            disk_size=size,
            disk_free=free,
            **msgspec.structs.asdict(self.fetcher.statistics()),
        )
