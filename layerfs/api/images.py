"""What a program on trio has of a store: images, their mounted roots, leases."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import trio

from layerfs.api.backing import Backing
from layerfs.api.facts import ImageEntry, ImageFacts, MountFacts
from layerfs.api.here import layers_here, stack_paths
from layerfs.api.lazystack import NotLazy, require_ability, use_lazy_stack
from layerfs.api.machinery import fetch_stack, made_durable
from layerfs.api.mounting import MountChoice, Remains, RootMount, mount_root, mount_stack
from layerfs.api.options import Laziness, StrPath
from layerfs.api.root import ImageRoot, PathLike, Walk
from layerfs.errors import NotInStore, UsageError
from layerfs.host.mountpoint import Mountpoint
from layerfs.needs import LayersNeed
from layerfs.oci import Digest, ImageReference
from layerfs.oci import Image as Documents
from layerfs.store.leases import HeldLease
from layerfs.view.archive import write_tar


class Output(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of *data*."""


class Closing(ABC):
    """What a program has until it closes it, or leaves its context."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of it; harmless a second time."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self.close()


class Lease(Closing):
    """Keeps what it names from removal."""

    def __init__(self, held: HeldLease) -> None:
        self._held = held
        self.name = held.name

    async def close(self) -> None:
        """End it. Raises StoreError."""
        await trio.to_thread.run_sync(self._held.release)


class Mount(MountFacts, Closing):
    """The root of an image at a directory."""

    def __init__(self, made: RootMount, remains: Remains) -> None:
        super().__init__(made.path, made.upper)
        self._made = made
        self._remains = remains

    async def close(self, *, detach: bool = False) -> None:
        """Unmount it and remove what *rw* kept. Raises MountError while it is used, unless *detach*.

        With that, what processes in it use stays for `layerfs gc`.
        """
        left = await trio.to_thread.run_sync(partial(self._made.unmount, detach=detach))
        if left is not None:
            await self._remains.remove(left)


class Image(ImageFacts):
    """An image whose documents are in the store; its layers come when they are needed.

    Nothing removes what it uses until its store is closed.
    """

    def __init__(
        self, backing: Backing, reference: ImageReference, digest: Digest, documents: Documents
    ) -> None:
        super().__init__(reference, digest, documents)
        self._backing = backing
        self._root: ImageRoot | None = None

    async def lowerdirs(self) -> Sequence[Path]:
        """Have all layers here and return what overlay's ``lowerdir=`` takes, topmost first.

        The first is the cover, which hides the markers in the others. Raises LayerfsError.
        """
        storage = self._backing.storage
        await self._backing.keep(self)
        layers = [layer.digest for layer in self.layers]
        if storage.cover(layers) is None or layers_here(storage, self.documents) is None:
            async with made_durable(storage):
                await fetch_stack(await self._backing.machinery(), self.reference, self.documents)
        return tuple(map(Path, stack_paths(storage, self.documents)))

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
        """Mount the merged root at the existing directory *where*: read-only, nosuid, nodev.

        With *rw* what is written is kept in the store until the mount is closed; with *upper* and *work*,
        two directories of one filesystem, there. *suid* and *dev* have the image's set-user-id bits and
        devices count. With *lazy* a root of layers with a TOC is there before they are, and a file comes when
        it is opened, if a layerfs mount of the store runs that can be asked: ``auto`` else has all of it here
        first, ``always`` raises UsageError. Raises MountError, StoreError, LayerfsError.
        """
        above, beside = (None if path is None else Path(path) for path in (upper, work))
        choice = MountChoice(rw=rw, upper=above, work=beside, suid=suid, dev=dev)
        made = None
        if lazy == "always" or (
            lazy == "auto" and layers_here(self._backing.storage, self.documents) is None
        ):
            try:
                made = await self._mounted_lazily(Path(where), choice)
            except NotLazy as exc:
                if lazy == "always":
                    raise UsageError(f"lazy=always: {exc}") from exc
        if made is None:
            lowers = await self.lowerdirs()
            store = self._backing.storage.images_dir
            made = await trio.to_thread.run_sync(mount_root, store, lowers, Path(where), choice)
        return Mount(made, self._backing.remains)

    async def _mounted_lazily(self, where: Path, how: MountChoice) -> RootMount:
        """Mount it before it is here. Raises NotLazy."""
        backing = self._backing
        require_ability(backing.settings, backing.storage)
        machinery = await backing.machinery()
        with Mountpoint.open(where) as target:
            mount = partial(mount_stack, target=target, how=how)
            return await use_lazy_stack(
                machinery, self.reference, self.documents, target.path, backing.find_bell, mount
            )

    async def open(self, path: PathLike) -> BinaryIO:
        """Open a file of the merged root for reading, once its bytes are here and verified.

        Links lead within the image. Raises OSError as open(2) would, LayerfsError.
        """
        return await (await self._files()).open(path)

    async def read_bytes(self, path: PathLike, *, limit: int | None = None) -> bytes:
        """Return what a file holds; OSError (EFBIG) for more than *limit* bytes. Raises as `open` does."""
        return await (await self._files()).read_bytes(path, limit=limit)

    async def listdir(self, path: PathLike = "/") -> list[str]:
        """Return the names in a directory, sorted. Raises OSError, LayerfsError."""
        return await (await self._files()).listdir(path)

    async def stat(self, path: PathLike, *, follow_symlinks: bool = True) -> ImageEntry:
        """Return what is at *path*. Raises OSError, LayerfsError."""
        return await (await self._files()).stat(path, follow=follow_symlinks)

    async def readlink(self, path: PathLike) -> str:
        """Return the target of a symbolic link. Raises OSError, LayerfsError."""
        return await (await self._files()).readlink(path)

    async def walk(self, path: PathLike = "/") -> AsyncIterator[ImageEntry]:
        """Yield *path* and all below it: depth first, sorted, a directory before what is in it.

        Follows no link but those that *path* names. Raises OSError, LayerfsError.
        """
        way = await self.begin_walk(path)
        while page := await way.more():
            for entry in page:
                yield entry

    async def begin_walk(self, path: PathLike) -> Walk:
        """Return a walk that is asked for some entries at a time."""
        return await (await self._files()).walk(path)

    async def export(self, stream: Output) -> None:
        """Write the merged root as a tar archive, always the same bytes, from another thread.

        Has all layers here before. Raises LayerfsError, and what *stream* raises.
        """
        need = LayersNeed(self.reference.repository, self.documents, tuple(range(len(self.layers))))
        await self._backing.keep(self)
        found = layers_here(self._backing.storage, self.documents)
        if found is None:
            await self._backing.obtain(need)
            found = layers_here(self._backing.storage, self.documents)
        if found is None:
            raise NotInStore(f"{self.reference}: fetched, but removed again meanwhile; try again")

        def write(data: bytes) -> object:
            trio.from_thread.check_cancelled()
            return stream.write(data)

        await trio.to_thread.run_sync(write_tar, found, write)

    async def _files(self) -> ImageRoot:
        await self._backing.keep(self)
        if self._root is None:
            backing = self._backing
            self._root = ImageRoot(
                backing.storage,
                self.reference.repository,
                self.documents,
                backing.obtain,
                backing.laziness.allows,
            )
        return self._root
