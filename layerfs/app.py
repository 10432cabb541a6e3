"""The wiring: from Settings to a running daemon, or to a provider for a command.

The only place that knows all parts. Called by the command line; decides nothing that a
package below could decide.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from layerfs import __version__
from layerfs.extract.client import WORKERS_MAX, ExtractorPool
from layerfs.fetch import Journal, Provider, open_provider
from layerfs.fuse import session
from layerfs.registry import RegistryClient, RegistrySettings
from layerfs.settings import Settings
from layerfs.store import ImageStorage
from layerfs.view import tree


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[RegistryClient]:
    """Own the registry client that *settings* describe."""
    registry = RegistrySettings(
        insecure=settings.insecure_registries, authfile=settings.authfile, offline=settings.offline
    )
    async with RegistryClient(registry) as client:
        yield client


@asynccontextmanager
async def providing(settings: Settings, storage: ImageStorage) -> AsyncIterator[Provider]:
    """Own the registry client, the workers and the tasks that fetch into *storage*."""
    workers = min(os.cpu_count() or 1, WORKERS_MAX)
    with ExtractorPool(workers) as pool:
        async with (
            asking(settings) as client,
            open_provider(
                storage,
                client,
                pool,
                platform=settings.platform,
                budgets=settings.budgets,
                workers=workers,
            ) as provider,
        ):
            yield provider


async def serve(settings: Settings, mountpoint: Path, ready: Callable[[], None]) -> None:
    """Mount the store at *mountpoint* and serve until unmounted or told to end.

    Calls *ready* once the mount answers. Raises MountError, StoreError.
    """
    storage = ImageStorage(settings.store)
    async with providing(settings, storage) as provider:
        status = Status(provider.journal, settings, mountpoint)
        view = tree.build(storage, mountpoint, settings.platform, status)
        await session.serve(
            view,
            provider,
            mountpoint,
            allow_other=settings.allow_other,
            fetch_timeout=settings.fetch_timeout,
            disk=str(settings.store),
            ready=ready,
        )


class Status:
    """What ``.layerfs/status.json`` says; the view reads it when asked."""

    def __init__(self, journal: Journal, settings: Settings, mountpoint: Path) -> None:
        self._journal = journal
        self._settings = settings
        self._mountpoint = mountpoint

    def read(self) -> bytes:
        """Return the status as JSON, one object, times in seconds since the epoch, sizes in bytes."""
        status = {
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": str(self._mountpoint),
            "store": str(self._settings.store),
            "platform": str(self._settings.platform),
            "offline": self._settings.offline,
            "fetching": [
                {
                    "repository": str(progress.repository),
                    "digest": str(progress.digest),
                    "phase": progress.phase,
                    "received": progress.received,
                    "size": progress.size,
                    "since": progress.started,
                }
                for progress in self._journal.active.values()
            ],
            "errors": [
                {"time": entry.time, "what": entry.what, "error": entry.error, "message": entry.message}
                for entry in self._journal.failures
            ],
        }
        return msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n"
