"""The downloader process, ``python -m layerfs.fetch.downloader FD``: asks registries, for one daemon.

Its one client keeps the connections, logins and tokens of all registries. Whatever it may not ask is in the
settings that it is sent.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import layerfs.spared.process  # noqa: F401 - before trio
from layerfs.fetch.operations import operations
from layerfs.fetch.origin import InProcess, Listener
from layerfs.host import confine
from layerfs.processes import answering
from layerfs.processes.messages import packed, unpacked
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from layerfs.registry.keychain import needs_helper
from layerfs.spared import msgspec


@asynccontextmanager
async def _opened(
    settings: msgspec.Raw, count: Callable[[msgspec.Raw], None]
) -> AsyncIterator[answering.Handler]:
    registries = unpacked(settings, RegistrySettings)
    _confine(registries)
    async with RegistryClient(registries) as client:
        origin = InProcess(client, inline=True)

        def report() -> None:
            if client.traffic:
                count(packed(client.traffic.taken()))

        async def answered(raw: msgspec.Raw, files: tuple[int, ...], told: Listener) -> msgspec.Raw:
            def telling(value: int) -> None:
                report()
                told(value)

            try:
                return packed(await origin.ask(operations.decode(raw), files, telling))
            finally:
                report()

        yield answered


def _confine(settings: RegistrySettings) -> None:
    """Give up what a process does not need that talks to strangers: it writes to files that were lent to it.

    A credential helper is somebody else's program, with files of its own: where one is configured, it may be
    started, and may write.
    """
    confine.keep_capabilities([confine.CAP_DAC_READ_SEARCH])  # credentials and certificates may be others'
    if needs_helper(settings):
        return
    confine.write_only_below()
    confine.refuse_calls((*confine.SYSTEM, *confine.PROGRAMS, *confine.METADATA))


if __name__ == "__main__":
    answering.run(_opened)
