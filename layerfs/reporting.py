"""What a daemon says of itself: put together from those who count, for the view to show."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from layerfs import __version__
from layerfs.fetch.fetcher import Fetcher
from layerfs.gc.keeper import Keeper
from layerfs.metrics import exposition
from layerfs.status import Requests, Status
from layerfs.supervision import InForce


class Reporter(msgspec.Struct, frozen=True):
    """What the view asks for ``.layerfs/status.json`` and ``.layerfs/metrics``."""

    fetcher: Fetcher
    keeper: Keeper
    in_force: InForce
    mountpoint: Path
    requests: Callable[[], tuple[Requests, ...]]

    def read(self) -> bytes:
        """Return the status as of now."""
        return self._about().encode()

    def events(self) -> bytes:
        """Return the latest events."""
        return self.fetcher.journal.happening.latest().encode()

    def metrics(self) -> bytes:
        """Return the metrics as of now."""
        return exposition(self._about())

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
