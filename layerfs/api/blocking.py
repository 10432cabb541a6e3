"""The API for programs with threads: the names of `layerfs.api.on_trio`, and calls that block.

All is thread-safe. Ctrl-C ends a call as it ends any: once the call has been undone, KeyboardInterrupt is
raised. A store belongs to the process that opened it; after fork(2) the child opens it again. A mount is made
in the mount namespace that the process had as it opened the store.
"""

import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, ParamSpec, Self, TypeVar, Unpack

from layerfs.api import on_trio
from layerfs.api.facts import ImageEntry, ImageFacts, MountFacts
from layerfs.api.images import Output
from layerfs.api.options import Laziness, Options, StrPath
from layerfs.api.portal import Portal
from layerfs.api.root import PathLike
from layerfs.api.watching import Tell
from layerfs.catalog.verification import Report
from layerfs.gc.jobs import Outcome
from layerfs.gc.listing import StoredImage
from layerfs.gc.survey import Survey
from layerfs.oci import Digest, ImageReference
from layerfs.status import Fetching
from layerfs.store.leases import Lease as StoredLease

P = ParamSpec("P")
T = TypeVar("T")

_deadline: ContextVar[float | None] = ContextVar("layerfs_deadline", default=None)


@contextlib.contextmanager
def fail_after(seconds: float) -> Iterator[None]:
    """Have each call of this thread in the block raise TimeoutError once *seconds* have passed."""
    before, mine = _deadline.get(), time.monotonic() + seconds
    token = _deadline.set(mine if before is None else min(before, mine))
    try:
        yield
    finally:
        _deadline.reset(token)


class _Face:
    """Something that lives in the loop of a store."""

    def __init__(self, portal: Portal[on_trio.Store]) -> None:
        self._portal = portal

    def _call(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        deadline = _deadline.get()
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        return self._portal.call_within(seconds, partial(work, *args, **kwargs))


class Lease(_Face):
    """Keeps what it names from removal, until it is closed or its block is left."""

    def __init__(self, portal: Portal[on_trio.Store], inner: on_trio.Lease) -> None:
        super().__init__(portal)
        self._inner = inner
        self.name = inner.name

    def close(self) -> None:
        """End it. Raises StoreError."""
        self._portal.call(self._inner.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Mount(MountFacts, _Face):
    """The root of an image at a directory, until it is closed or its block is left."""

    def __init__(self, portal: Portal[on_trio.Store], inner: on_trio.Mount) -> None:
        MountFacts.__init__(self, inner.path, inner.upper)
        _Face.__init__(self, portal)
        self._inner = inner

    def close(self, *, detach: bool = False) -> None:
        """Unmount it and remove what *rw* kept. Raises MountError while it is used, unless *detach*.

        With that, what processes in it use stays for `layerfs gc`.
        """
        self._portal.call(self._inner.close, detach=detach)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Image(ImageFacts, _Face):
    """An image of a store: see `layerfs.api.on_trio.Image`."""

    def __init__(self, portal: Portal[on_trio.Store], inner: on_trio.Image) -> None:
        ImageFacts.__init__(self, inner.reference, inner.digest, inner.documents)
        _Face.__init__(self, portal)
        self._inner = inner

    def lowerdirs(self) -> Sequence[Path]:
        """Have all layers here and return what overlay's ``lowerdir=`` takes, topmost first."""
        return self._call(self._inner.lowerdirs)

    def mount(
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
        made = self._call(
            self._inner.mount, where, rw=rw, upper=upper, work=work, suid=suid, dev=dev, lazy=lazy
        )
        return Mount(self._portal, made)

    def open(self, path: PathLike) -> BinaryIO:
        """Open a file of the merged root for reading, once its bytes are here and verified."""
        return self._call(self._inner.open, path)

    def read_bytes(self, path: PathLike, *, limit: int | None = None) -> bytes:
        """Return what a file holds; OSError (EFBIG) for more than *limit* bytes."""
        return self._call(self._inner.read_bytes, path, limit=limit)

    def listdir(self, path: PathLike = "/") -> list[str]:
        """Return the names in a directory, sorted."""
        return self._call(self._inner.listdir, path)

    def stat(self, path: PathLike, *, follow_symlinks: bool = True) -> ImageEntry:
        """Return what is at *path*."""
        return self._call(self._inner.stat, path, follow_symlinks=follow_symlinks)

    def readlink(self, path: PathLike) -> str:
        """Return the target of a symbolic link."""
        return self._call(self._inner.readlink, path)

    def walk(self, path: PathLike = "/") -> Iterator[ImageEntry]:
        """Yield *path* and all below it: depth first, sorted, a directory before what is in it."""
        way = self._call(self._inner.begin_walk, path)
        while page := self._call(way.more):
            yield from page

    def export(self, stream: Output) -> None:
        """Write the merged root as a tar archive, always the same bytes, from another thread."""
        self._call(self._inner.export, stream)


class Store(_Face):
    """A store of images on this machine's disk: see `layerfs.api.on_trio.Store`. Made by `open`."""

    def __init__(self, portal: Portal[on_trio.Store]) -> None:
        super().__init__(portal)
        self._inner = portal.opened.result()
        weakref.finalize(self, portal.stop).atexit = False

    @classmethod
    def open(cls, path: StrPath | None = None, **options: Unpack[Options]) -> Self:
        """Open the store at *path*, and make it where none is; without a *path* that of the command line."""
        portal = Portal(partial(on_trio.Store.open, path, **options))
        try:
            return cls(portal)
        except BaseException:
            portal.stop()
            raise

    def close(self) -> None:
        """Close it; calls under way raise UsageError, mounts stay. Harmless a second time."""
        self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pull(
        self, reference: str | ImageReference, *, platform: str | None = None, progress: Tell | None = None
    ) -> Image:
        """Ask the registry what *reference* names now, and have all its layers here, on the disk.

        *progress* is called in another thread, and may not call the store.
        """
        return Image(
            self._portal, self._call(self._inner.pull, reference, platform=platform, progress=progress)
        )

    def image(self, reference: str | ImageReference, *, platform: str | None = None) -> Image:
        """Return an image without its layers: as it is here, or else as the registry says now."""
        return Image(self._portal, self._call(self._inner.image, reference, platform=platform))

    def images(self) -> Sequence[StoredImage]:
        """Return the names that the store has, sorted, and what is known of each platform that is here."""
        return self._call(self._inner.images)

    def remove(
        self, images: Iterable[str | ImageReference], *, plan_only: bool = False, force: bool = False
    ) -> Outcome:
        """Remove names of images (tags, digests or image ids), and what only they needed."""
        return self._call(self._inner.remove, images, plan_only=plan_only, force=force)

    def lease(
        self,
        name: str,
        what: Iterable[ImageFacts | Digest | str],
        *,
        until: datetime | None = None,
        pid: int | None = None,
    ) -> Lease:
        """Keep images, or layers and documents by their digests, until *until* or as long as *pid* lives."""
        return Lease(self._portal, self._call(self._inner.lease, name, list(what), until=until, pid=pid))

    def leases(self) -> Mapping[str, StoredLease]:
        """Return the leases that hold, of all processes, by their names."""
        return self._call(self._inner.leases)

    def end_lease(self, name: str) -> None:
        """End a lease of any process."""
        self._call(self._inner.end_lease, name)

    def gc(self, *, plan_only: bool = False, older_than: float = 0, force: bool = False) -> Outcome:
        """Remove what no name, lease, mount or work needs, and say what went; with *plan_only* what would."""
        return self._call(self._inner.gc, plan_only=plan_only, older_than=older_than, force=force)

    def verify(
        self,
        images: Iterable[str | ImageReference] | None = None,
        *,
        quick: bool = False,
        repair: bool = False,
        force: bool = False,
    ) -> Report:
        """Check all that is here, or some *images*, against the digests; with *repair* make it anew."""
        return self._call(self._inner.verify, images, quick=quick, repair=repair, force=force)

    def usage(self) -> Survey:
        """Return what takes how much, who needs it, and what a collection would remove."""
        return self._call(self._inner.usage)

    def events(self) -> Iterator[Fetching]:
        """Yield what is being fetched, whenever that has changed, at most ten times a second, for ever."""
        watch = self._inner.watch()
        while True:
            yield self._call(watch.next)
