"""Blobs on their way from the store into a registry, some at a time, and what is said of it meanwhile."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import click
import msgspec
import trio

from layerfs.errors import LayerfsError, NotInStore
from layerfs.fetch.tasks import background, outcome
from layerfs.oci import Digest, Repository
from layerfs.registry.body import Body
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.registry.client import RegistryClient
    from layerfs.registry.upload import Way

_AT_ONCE: Final = 4
"""Blobs that are pushed at the same time."""
_PERIOD: Final = 30.0
_PERIOD_OF_TERMINAL: Final = 5.0
"""Seconds between two lines on how far a push is; somebody looks at a terminal."""


class Upload(msgspec.Struct, frozen=True):
    """A blob or a config, and where the store has it."""

    digest: Digest
    size: int
    path: str


class Pushing:
    """Pushes the blobs of one image to *target*."""

    def __init__(
        self, client: "RegistryClient", target: Repository, source: Repository | None, *, silent: bool
    ) -> None:
        """Push by *client*; blobs may be mounted from *source*. Unless *silent*, each is said."""
        self._client = client
        self._target = target
        self._source = source
        self._silent = silent
        self._limiter = trio.CapacityLimiter(_AT_ONCE)
        self._sent: dict[Digest, int] = {}
        self._done: dict[Digest, Way] = {}
        self._errors: list[LayerfsError] = []

    async def push(self, uploads: list[Upload]) -> "list[tuple[Upload, Way]]":
        """Push all. Raises the first error, once what is under way has ended."""
        async with background() as telling, trio.open_nursery() as nursery:
            telling.start_soon(self._tell, len(uploads))
            for upload in uploads:
                nursery.start_soon(self._one, upload)
        if self._errors:
            raise self._errors[0]
        return [(upload, self._done[upload.digest]) for upload in uploads]

    async def _one(self, upload: Upload) -> None:
        async with self._limiter:
            if self._errors:
                return
            way = await outcome(self._send(upload, partial(self._sent.__setitem__, upload.digest)))
        if isinstance(way, LayerfsError):
            self._errors.append(way)
            return
        self._done[upload.digest] = way
        if not self._silent:
            click.echo(f"{upload.digest.shown}  {human_size(upload.size)}  {way}", err=True)

    async def _send(self, upload: Upload, told: Callable[[int], object]) -> "Way":
        try:
            fd = os.open(upload.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as exc:
            raise NotInStore(f"{upload.digest}: {exc.strerror} (removed meanwhile? try again)") from exc
        try:
            body = Body.of_file(fd, upload.size, upload.digest, told)
            return await self._client.push_blob(self._target, upload.digest, body, self._source)
        finally:
            os.close(fd)

    async def _tell(self, all_of_them: int) -> None:
        while not self._silent:
            await trio.sleep(_PERIOD_OF_TERMINAL if sys.stderr.isatty() else _PERIOD)
            size = human_size(sum(self._sent.values()))
            click.echo(f"{len(self._done)} of {all_of_them} blobs are there, {size} sent", err=True)
