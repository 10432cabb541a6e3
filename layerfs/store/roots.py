"""The lower directories of an image mounted as one root, with a scratch of the store where it needs one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from layerfs.errors import NotInStore
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import Overlay, mount_overlay

if TYPE_CHECKING:
    from layerfs.store.scratch import Scratch


class OverlayRoot(msgspec.Struct, frozen=True, kw_only=True):
    """How lower directories become a root."""

    lowers: Sequence[str]
    """Topmost first."""
    data: Sequence[str] = ()
    """As `layerfs.host.overlay.Overlay` has them."""
    rw: bool = False
    """Write into a scratch of the store."""
    upper: Path | None = None
    """Where it writes instead; there if and only if *work* is."""
    work: Path | None = None
    options: frozenset[str]
    gone: str
    """What to say if a lower directory was taken away before the kernel had it."""

    def mount(self, target: Mountpoint, scratch: "Scratch | None") -> None:
        """Mount it; *scratch* has its upper directory unless `upper` is that.

        Raises MountError, NotInStore.
        """
        if scratch is not None:
            scratch.note([*self.lowers, *self.data])
        mount_overlay(self._overlay(scratch), target)
        # From now on the lower directories are in the list of mounts, so nobody takes one away.
        if not all(map(os.path.isdir, self.lowers)):
            target.unmount()
            raise NotInStore(self.gone)
        if scratch is not None:
            scratch.lock.release()  # it is in that list, too

    def mount_lazily(self, target: Mountpoint, scratch: "Scratch") -> None:
        """Mount what is not all here: the topmost of *lowers* lies in *scratch*. Raises as `mount` does."""
        if self.upper is None:
            self.mount(target, scratch)
            return
        scratch.has_upper_at(self.upper)
        with scratch.upper_alone():
            self.mount(target, scratch)

    def _overlay(self, scratch: "Scratch | None") -> Overlay:
        lowers = [os.fsencode(path) for path in self.lowers]
        upper, work, options = self.upper, self.work, self.options
        if scratch is not None and upper is None:
            # Read-only ones, too: the kernel says of an upper directory whether its overlay still lives.
            upper, work = scratch.upper, scratch.work
            options |= frozenset() if self.rw else {"ro"}
        return Overlay(
            lowers,
            None if upper is None else os.fsencode(upper.absolute()),
            None if work is None else os.fsencode(work.absolute()),
            data=[os.fsencode(path) for path in self.data],
            options=options,
        )

    def mount_with_scratch(self, store: Path, target: Mountpoint) -> "Scratch | None":
        """Mount it, and make the scratch in *store* that it needs, which is returned.

        Raises MountError, NotInStore, StoreFull, StoreReadOnly, StoreError.
        """
        if not self.rw and (len(self.lowers) > 1 or self.upper is not None):
            self.mount(target, None)
            return None
        from layerfs.store.scratch import make_scratch  # most roots need none

        scratch = make_scratch(store, target.path, Path(self.lowers[0]))
        try:
            self.mount(target, scratch)
        except BaseException:
            scratch.remove()
            raise
        return scratch
