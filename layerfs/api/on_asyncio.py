"""The API for programs on asyncio: the names of `layerfs.api.on_trio`, run in a thread with trio.

A call that is cancelled, by `asyncio.timeout` for instance, raises CancelledError once it has been undone.
One store is for one event loop; a program with several opens it in each.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, ParamSpec, Self, TypeVar, Unpack

from layerfs.api import on_trio
from layerfs.api.facts import ImageEntry, ImageFacts, MountFacts
from layerfs.api.images import Output
from layerfs.api.options import Laziness, Options, StrPath
from layerfs.api.portal import Portal, ended
from layerfs.api.root import PathLike
from layerfs.api.watching import Tell
from layerfs.catalog.verification import Report
from layerfs.gc.jobs import Outcome
from layerfs.gc.listing import StoredImage
from layerfs.gc.survey import Survey
from layerfs.oci import Digest, ImageReference
from layerfs.status import Fetching, Underway
from layerfs.store.leases import Lease as StoredLease

P = ParamSpec("P")
T = TypeVar("T")


class _Face:
    """Something that lives in the loop of a store."""

    def __init__(self, portal: Portal[on_trio.Store]) -> None:
        self._portal = portal

    async def _call(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._portal.acall(work, *args, **kwargs)


class Lease(_Face):
    """Keeps what it names from removal, until it is closed or its block is left."""

    def __init__(self, portal: Portal[on_trio.Store], inner: on_trio.Lease) -> None:
        super().__init__(portal)
        self._inner = inner
        self.name = inner.name

    async def close(self) -> None:
        """End it. Raises StoreError."""
        await self._portal.acall(self._inner.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Mount(MountFacts, _Face):
    """The root of an image at a directory, until it is closed or its block is left."""

    def __init__(self, portal: Portal[on_trio.Store], inner: on_trio.Mount) -> None:
        MountFacts.__init__(self, inner.path, inner.upper)
        _Face.__init__(self, portal)
        self._inner = inner

    async def close(self, *, detach: bool = False) -> None:
        """Unmount it and remove what *rw* kept. Raises MountError while it is used, unless *detach*.

        With that, what processes in it use stays for `layerfs gc`.
        """
        await self._portal.acall(self._inner.close, detach=detach)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Image(ImageFacts, _Face):
    """An image of a store: see `layerfs.api.on_trio.Image`."""

    def __init__(self, portal: Portal[on_trio.Store], inner: on_trio.Image) -> None:
        ImageFacts.__init__(self, inner.reference, inner.digest, inner.documents)
        _Face.__init__(self, portal)
        self._inner = inner

    async def lowerdirs(self) -> Sequence[Path]:
        """Have all layers here and return what overlay's ``lowerdir=`` takes, topmost first."""
        return await self._call(self._inner.lowerdirs)

    async def mount(
        self,
        where: StrPath,
        *,
        rw: bool = False,
        upper: StrPath | None = None,
        work: StrPath | None = None,
        suid: bool = False,
        dev: bool = False,
        lazy: Laziness = "auto",
    ) -> Mount:
        """Mount the merged root at the existing directory *where*: read-only, nosuid, nodev."""
        made = await self._call(
            self._inner.mount, where, rw=rw, upper=upper, work=work, suid=suid, dev=dev, lazy=lazy
        )
        return Mount(self._portal, made)

    async def open(self, path: PathLike) -> BinaryIO:
        """Open a file of the merged root for reading, once its bytes are here and verified."""
        return await self._call(self._inner.open, path)

    async def read_bytes(self, path: PathLike, *, limit: int | None = None) -> bytes:
        """Return what a file holds; OSError (EFBIG) for more than *limit* bytes."""
        return await self._call(self._inner.read_bytes, path, limit=limit)

    async def listdir(self, path: PathLike = "/") -> list[str]:
        """Return the names in a directory, sorted."""
        return await self._call(self._inner.listdir, path)

    async def stat(self, path: PathLike, *, follow_symlinks: bool = True) -> ImageEntry:
        """Return what is at *path*."""
        return await self._call(self._inner.stat, path, follow_symlinks=follow_symlinks)

    async def readlink(self, path: PathLike) -> str:
        """Return the target of a symbolic link."""
        return await self._call(self._inner.readlink, path)

    async def walk(self, path: PathLike = "/") -> AsyncIterator[ImageEntry]:
        """Yield *path* and all below it: depth first, sorted, a directory before what is in it."""
        way = await self._call(self._inner.begin_walk, path)
        while page := await self._call(way.more):
            for entry in page:
                yield entry

    async def export(self, stream: Output) -> None:
        """Write the merged root as a tar archive, always the same bytes, from another thread."""
        await self._call(self._inner.export, stream)


class Store(_Face):
    """A store of images on this machine's disk: see `layerfs.api.on_trio.Store`. Made by `open`."""

    def __init__(self, portal: Portal[on_trio.Store]) -> None:
        super().__init__(portal)
        self._inner = portal.opened.result()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: StrPath | None = None, **options: Unpack[Options]) -> AsyncIterator[Self]:
        """Open the store at *path* for a block; without a *path* that of the command line."""
        portal = Portal(partial(on_trio.Store.open, path, **options))
        try:
            await ended(portal.opened)
            yield cls(portal)
        finally:
            await portal.aclose()

    async def pull(
        self, reference: str | ImageReference, *, platform: str | None = None, progress: Tell | None = None
    ) -> Image:
        """Ask the registry what *reference* names now, and have all its layers here, on the disk.

        *progress* is called in this loop.
        """
        loop = asyncio.get_running_loop()

        def tell(found: Underway) -> None:
            assert progress is not None, "nobody is told otherwise"
            loop.call_soon_threadsafe(progress, found)

        return Image(
            self._portal,
            await self._call(
                self._inner.pull, reference, platform=platform, progress=tell if progress else None
            ),
        )

    async def image(self, reference: str | ImageReference, *, platform: str | None = None) -> Image:
        """Return an image without its layers: as it is here, or else as the registry says now."""
        return Image(self._portal, await self._call(self._inner.image, reference, platform=platform))

    async def images(self) -> Sequence[StoredImage]:
        """Return the names that the store has, sorted, and what is known of each platform that is here."""
        return await self._call(self._inner.images)

    async def remove(
        self, images: Iterable[str | ImageReference], *, plan_only: bool = False, force: bool = False
    ) -> Outcome:
        """Remove names of images (tags, digests or image ids), and what only they needed."""
        return await self._call(self._inner.remove, images, plan_only=plan_only, force=force)

    async def lease(
        self,
        name: str,
        what: Iterable[ImageFacts | Digest | str],
        *,
        until: datetime | None = None,
        pid: int | None = None,
    ) -> Lease:
        """Keep images, or layers and documents by their digests, until *until* or as long as *pid* lives."""
        return Lease(
            self._portal, await self._call(self._inner.lease, name, list(what), until=until, pid=pid)
        )

    async def leases(self) -> Mapping[str, StoredLease]:
        """Return the leases that hold, of all processes, by their names."""
        return await self._call(self._inner.leases)

    async def end_lease(self, name: str) -> None:
        """End a lease of any process."""
        await self._call(self._inner.end_lease, name)

    async def gc(self, *, plan_only: bool = False, older_than: float = 0, force: bool = False) -> Outcome:
        """Remove what no name, lease, mount or work needs, and say what went; with *plan_only* what would."""
        return await self._call(self._inner.gc, plan_only=plan_only, older_than=older_than, force=force)

    async def verify(
        self,
        images: Iterable[str | ImageReference] | None = None,
        *,
        quick: bool = False,
        repair: bool = False,
        force: bool = False,
    ) -> Report:
        """Check all that is here, or some *images*, against the digests; with *repair* make it anew."""
        return await self._call(self._inner.verify, images, quick=quick, repair=repair, force=force)

    async def usage(self) -> Survey:
        """Return what takes how much, who needs it, and what a collection would remove."""
        return await self._call(self._inner.usage)

    async def events(self) -> AsyncIterator[Fetching]:
        """Yield what is being fetched, whenever that has changed, at most ten times a second, for ever."""
        watch = self._inner.watch()
        while True:
            yield await self._call(watch.next)
