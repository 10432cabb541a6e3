"""The owner's side of the downloader process: an origin whose operations are done there.

A daemon's loop answers lookups, and each step of a download would stand in their way; so a mount downloads in
a process of its own. A command that serves nobody does it in its own process.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar, cast

import msgspec
import trio

from layerfs.fetch.origin import Listener, Operation, ignore
from layerfs.fetch.tasks import background
from layerfs.processes.asking import Helper
from layerfs.processes.messages import packed, unpacked
from layerfs.registry import RegistrySettings
from layerfs.registry.traffic import Traffic

A = TypeVar("A")

IDLE_EXIT: Final = 60.0
"""Seconds that the process waits for another question."""


class RemoteOrigin:
    """Registries, asked in another process. Made by `open_remote`; an `layerfs.fetch.origin.Origin`."""

    def __init__(self, new_helper: Callable[[RegistrySettings], Helper], settings: RegistrySettings) -> None:
        self._new_helper = new_helper
        self._helper = new_helper(settings)

    def renew(self, settings: RegistrySettings) -> None:
        """Have all further operations done by a new process, which reads logins and certificates anew.

        What the old one is asked already it ends; then nobody asks it, and it ends itself.
        """
        self._helper = self._new_helper(settings)

    async def warm_after(self, event: trio.Event) -> None:
        """Start the process once *event* is set, for whoever is about to ask."""
        await event.wait()
        await self.warm()

    async def warm(self) -> None:
        """Start the process unless it runs."""
        await self._helper.warm()

    async def ask(self, operation: Operation[A], files: tuple[int, ...] = (), told: Listener = ignore) -> A:
        """Have *operation* done; *files* are lent to it."""
        raw = await self._helper.ask(packed(operation), files, told)
        return cast("A", unpacked(raw, operation.result))


@asynccontextmanager
async def open_remote(
    settings: RegistrySettings,
    *,
    idle_exit: float = IDLE_EXIT,
    early: trio.Event | None = None,
    came: Callable[[Traffic], None] = lambda _: None,
    died: Callable[[], None] = lambda: None,
) -> AsyncIterator[RemoteOrigin]:
    """Own the process and the task that hears it. A LayerfsError of the block leaves as itself.

    The process starts when *early* is set, or at the first question. *came* hears what it has counted, each
    time of what is new; *died* is called when the process dies.
    """
    async with background() as nursery:

        def new_helper(settings: RegistrySettings) -> Helper:
            def counted(raw: msgspec.Raw) -> None:
                came(unpacked(raw, Traffic))

            module = "layerfs.fetch.downloader"
            return Helper(nursery, "downloader", module, packed(settings), idle_exit, counted, died)

        remote = RemoteOrigin(new_helper, settings)
        if early is not None:
            nursery.start_soon(remote.warm_after, early)
        yield remote
