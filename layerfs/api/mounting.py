"""The merged root of an image at a directory, by overlayfs, in the namespaces of the process."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from layerfs.api.lazystack import LazyStack
from layerfs.errors import StoreError, UsageError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import SOURCE
from layerfs.store.detaching import detach as detach_root
from layerfs.store.roots import OverlayRoot
from layerfs.store.scratch import Scratch, remove_scratches


class MountChoice(msgspec.Struct, frozen=True, kw_only=True):
    """How a root is mounted: read-only, nosuid and nodev unless it says otherwise."""

    rw: bool = False
    """Keep what is written in the store, until the mount is closed."""
    upper: Path | None = None
    """Keep what is written here instead; then *work* is an empty directory of the same filesystem."""
    work: Path | None = None
    suid: bool = False
    dev: bool = False

    def __post_init__(self) -> None:
        if (self.upper is None) != (self.work is None):
            raise UsageError("mount: upper needs work, an empty directory on the same filesystem")
        if self.rw and self.upper is not None:
            raise UsageError("mount: rw makes an upper directory of its own (expected that or upper)")

    @property
    def options(self) -> frozenset[str]:
        """The options of the mount."""
        return frozenset(({"nosuid"} if not self.suid else set()) | ({"nodev"} if not self.dev else set()))


class RootMount:
    """A root that was mounted, until `unmount`."""

    def __init__(self, path: Path, scratch: Scratch | None, upper: Path | None) -> None:
        self.path = path
        self.upper = upper
        self._scratch = scratch
        self._mounted = True

    def unmount(self, *, detach: bool) -> Scratch | None:
        """Unmount it and return what it leaves to be removed; harmless a second time.

        Raises MountError while it is used, unless *detach*; then also StoreFull, StoreReadOnly, StoreError.
        """
        if self._mounted:
            with Mountpoint.open(self.path) as target:
                found = target.mount()
                if found is not None and (found.fstype, found.source) == (b"overlay", SOURCE):
                    if detach:
                        detach_root(target, found, keep=self._scratch is None)
                    else:
                        target.unmount()
            self._mounted = False
        scratch, self._scratch = self._scratch, None
        return scratch


class Remains:
    """Scratches of roots that were unmounted, removed together: of many that end at once, in few turns."""

    def __init__(self) -> None:
        self._waiting: list[Scratch] = []
        self._failures: dict[Path, StoreError] = {}
        self._turn = trio.Lock()

    async def remove(self, scratch: Scratch) -> None:
        """Remove *scratch*. Raises StoreError if it stays."""
        self._waiting.append(scratch)
        async with self._turn:
            if scratch in self._waiting:  # and nobody has taken it along
                batch, self._waiting = self._waiting, []
                self._failures |= await trio.to_thread.run_sync(remove_scratches, batch)
        failure = self._failures.pop(scratch.path, None)
        if failure is not None:
            raise failure


def mount_stack(stack: LazyStack, scratch: Scratch, target: Mountpoint, how: MountChoice) -> RootMount:
    """Mount a stack that is not all here at *target*. Raises MountError, NotInStore."""
    _root(stack.lowers, target, how, stack.data).mount_lazily(target, scratch)
    return _mounted(target, scratch, how)


def mount_root(store: Path, lowers: Sequence[Path], where: Path, how: MountChoice) -> RootMount:
    """Mount *lowers*, topmost first, at the directory *where*. Raises MountError, StoreError."""
    with Mountpoint.open(where) as target:
        root = _root([str(path) for path in lowers], where, how)
        return _mounted(target, root.mount_with_scratch(store, target), how)


def _root(
    lowers: Sequence[str], where: Path | Mountpoint, how: MountChoice, data: Sequence[str] = ()
) -> OverlayRoot:
    return OverlayRoot(
        lowers=lowers,
        data=data,
        rw=how.rw,
        upper=how.upper,
        work=how.work,
        options=how.options,
        gone=f"{where}: a layer was removed as it was mounted; try again",
    )


def _mounted(target: Mountpoint, scratch: Scratch | None, how: MountChoice) -> RootMount:
    upper = scratch.upper if scratch is not None and how.rw else how.upper
    return RootMount(Path(os.fsdecode(target.path)), scratch, upper)
