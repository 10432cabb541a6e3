"""The downloader process, ``python -m layerfs.fetch.downloader FD``: asks registries, for one daemon.

Its one client keeps the connections, logins and tokens of all registries. Whatever it may not ask is in the
settings that it is sent.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from layerfs.fetch.operations import operations
from layerfs.fetch.origin import InProcess, Listener
from layerfs.processes import answering
from layerfs.processes.messages import packed, unpacked
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient


@asynccontextmanager
async def _opened(settings: msgspec.Raw) -> AsyncIterator[answering.Handler]:
    async with RegistryClient(unpacked(settings, RegistrySettings)) as client:
        origin = InProcess(client, inline=True)

        async def answered(raw: msgspec.Raw, files: tuple[int, ...], told: Listener) -> msgspec.Raw:
            return packed(await origin.ask(operations.decode(raw), files, told))

        yield answered


if __name__ == "__main__":
    answering.run(_opened)
