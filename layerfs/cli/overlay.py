"""``layerfs overlay``: the merged root of an image at a directory, by the kernel, without a layerfs mount."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import click
import msgspec

from layerfs.api.options import Laziness
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.belldaemon import bell_standby
from layerfs.cli.native import use_as_it_is, use_native_stack
from layerfs.cli.opening import reference_of
from layerfs.errors import MountError, StoreError, UsageError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import SOURCE
from layerfs.host.trust import entered_by_others
from layerfs.oci import ImageReference
from layerfs.settings import Settings
from layerfs.store.roots import OverlayRoot

if TYPE_CHECKING:
    from layerfs.host.mounts import Mount
    from layerfs.host.readiness import Standby
    from layerfs.store.scratch import Scratch

Places = Annotated[
    list[str],
    takes.argument(
        metavar="[REFERENCE] DIR",
        help="What to mount, and an existing directory to mount it at; with --umount only the latter.",
    ),
]
Directory = Path | None
Lazily = Annotated[
    Laziness,
    takes.option("--lazy", metavar="WHEN", help="Mount before the image is here: auto, never, always."),
]


class Writing(msgspec.Struct, frozen=True):
    """Where the overlay writes; nowhere if all are as they are here."""

    upper: Path | None = None
    work: Path | None = None
    scratch: bool = False

    def __post_init__(self) -> None:
        if (self.upper is None) != (self.work is None):
            raise UsageError("--upper DIR needs --work DIR, an empty directory on the same filesystem")
        if self.scratch and self.upper is not None:
            raise UsageError("--rw makes an upper directory of its own (expected that or --upper)")

    @contextlib.contextmanager
    def held(self) -> Iterator[Self]:
        """Yield this with paths that lead to the directories as they are now. Raises MountError."""
        with contextlib.ExitStack() as stack:
            upper, work = (
                None if path is None else Path(os.fsdecode(stack.enter_context(Mountpoint.open(path)).target))
                for path in (self.upper, self.work)
            )
            if upper and work and upper.stat().st_dev != work.stat().st_dev:
                raise UsageError(
                    f"--upper {self.upper} and --work {self.work} are on two filesystems (expected one)"
                )
            yield msgspec.structs.replace(self, upper=upper, work=work)


class Trusted(msgspec.Struct, frozen=True):
    """What of an image counts in the overlay that could harm the machine."""

    suid: bool = False
    dev: bool = False

    @property
    def options(self) -> frozenset[str]:
        """The options of the mount that follow."""
        return frozenset(({"nosuid"} if not self.suid else set()) | ({"nodev"} if not self.dev else set()))

    def __str__(self) -> str:
        found = ("run set-user-id programs" if self.suid else "", "open devices" if self.dev else "")
        return " and ".join(filter(None, found))


@app.verb(epilog="Example: layerfs overlay alpine:3.20 /mnt --rw && chroot /mnt /bin/sh")
@options.configured(*options.FETCHING)
def overlay(
    settings: Settings,
    places: Places,
    upper: Annotated[
        Directory, takes.option("--upper", metavar="DIR", help="Keep what is written in this directory.")
    ] = None,
    work: Annotated[
        Directory, takes.option("--work", metavar="DIR", help="Overlayfs's own, beside the upper directory.")
    ] = None,
    rw: Annotated[
        bool, takes.option("--rw", help="Keep what is written in the store, until --umount.")
    ] = False,
    suid: Annotated[bool, takes.option("--suid", help="Obey set-user-id bits of the image.")] = False,
    dev: Annotated[bool, takes.option("--dev", help="Let devices of the image open.")] = False,
    umount: Annotated[
        bool, takes.option("--umount", "-u", help="Unmount DIR and remove what --rw kept for it.")
    ] = False,
    detach: Annotated[
        bool, takes.option("--detach", "-l", help="With --umount: detach it even while it is in use.")
    ] = False,
    lazy: Lazily = "auto",
) -> None:
    """Mount the merged root of an image at DIR by the kernel.

    Read-only unless told otherwise. Fetches the image before; of layers with a TOC only that: a file comes
    when it is opened, by a layerfs mount of the store, or by one that is started for it and ends with the
    last such overlay. Else no daemon is needed. Needs the right to mount: root, or root of a user namespace
    that the store was made in. Mounts nosuid,nodev unless --suid and --dev say otherwise: give them for a DIR
    that other users cannot enter, as below a directory of mode 0700.
    """
    writing = Writing(upper, work, rw)
    trusted = Trusted(suid, dev)
    if umount:
        if len(places) != 1 or (writing, trusted) != (Writing(), Trusted()):
            raise UsageError(f"--umount: {len(places)} arguments or more options (expected DIR alone)")
        _unmount(settings, Path(places[0]), detach=detach)
    elif len(places) != 2:
        raise UsageError(f"{len(places)} arguments (expected REFERENCE DIR)")
    else:
        _overlaid(settings, places[0], places[1], writing, trusted, lazy)


def _overlaid(
    settings: Settings, name: str, directory: str, writing: Writing, trusted: Trusted, lazy: Laziness
) -> None:
    standing_by = nullcontext() if lazy == "never" else bell_standby(settings)  # before anything is open
    with standing_by as standby, Mountpoint.open(directory) as target, writing.held() as held:
        _require_free(target)
        reference = reference_of(settings, name)

        def whole(lowers: list[str]) -> None:
            _root(reference, lowers, held, trusted).mount_with_scratch(settings.store, target)

        if lazy == "never":
            use_native_stack(settings, reference, whole)
        elif lazy == "always":
            _mount_lazily(settings, reference, standby, target, held, trusted, None)
        elif not use_as_it_is(settings, reference, whole):
            _mount_lazily(settings, reference, standby, target, held, trusted, whole)
        _warn_of(trusted, target)


def _warn_of(trusted: Trusted, target: Mountpoint) -> None:
    if trusted != Trusted() and entered_by_others(str(target)):
        click.echo(
            f"layerfs: {target}: other users can enter it, and {trusted} of the image "
            "(expected a directory that they cannot reach, as below one of mode 0700)",
            err=True,
        )


def _mount_lazily(
    settings: Settings,
    reference: ImageReference,
    standby: "Standby | None",
    target: Mountpoint,
    writing: Writing,
    trusted: Trusted,
    whole: Callable[[list[str]], None] | None,
) -> None:
    """Mount an image before it is here; where that cannot be by *whole*. Raises UsageError for want of it."""
    from layerfs.api.lazystack import LazyStack
    from layerfs.cli.lazystack import use_lazy_stack

    def mount(stack: LazyStack, scratch: "Scratch") -> None:
        _root(reference, stack.lowers, writing, trusted, stack.data).mount_lazily(target, scratch)

    use_lazy_stack(settings, reference, standby, target.path, mount, whole)


def _require_free(target: Mountpoint) -> None:
    """Raise MountError if an overlay of ours is there: --umount could not tell their scratches apart."""
    there = target.mount()
    if there is not None and (there.fstype, there.source) == (b"overlay", SOURCE):
        raise MountError(f"{target}: an overlay is there already (layerfs overlay --umount {target})")


def _root(
    reference: ImageReference,
    lowers: Sequence[str],
    writing: Writing,
    trusted: Trusted,
    data: Sequence[str] = (),
) -> OverlayRoot:
    return OverlayRoot(
        lowers=lowers,
        data=data,
        rw=writing.scratch,
        upper=writing.upper,
        work=writing.work,
        options=trusted.options,
        gone=f"{reference}: fetched, but removed again meanwhile; try again",
    )


def _leave(target: Mountpoint, found: "Mount", *, keep: bool) -> None:
    """Detach what is *found* at *target*; say so if what it is made of is to be kept, and was."""
    from layerfs.store.detaching import detach

    if detach(target, found, keep=keep):
        click.echo(
            f"layerfs: {target}: detached; what it is made of stays in the store until the "
            "next boot, as nobody can see how long processes are in it",
            err=True,
        )


def _unmount(settings: Settings, directory: Path, *, detach: bool) -> None:
    from layerfs.store.scratch import scratches_of

    with Mountpoint.open(directory) as target:
        found = target.mount()
        scratches = scratches_of(settings.store, target.path)
        if found is not None:
            if (found.fstype, found.source) != (b"overlay", SOURCE):
                kind = os.fsdecode(found.fstype)
                raise MountError(
                    f"{directory}: a mount of type {kind}, not one of layerfs overlay (use umount)"
                )
            if detach:
                _leave(target, found, keep=not scratches)
            else:
                target.unmount()
        elif not scratches:
            raise MountError(f"{directory}: nothing is mounted there")
    left = [scratch for scratch in scratches if not scratch.remove()]
    if left and found is None:
        raise StoreError(
            f"{left[0].path}: not removed: {left[0].user() or 'it is in use'} from {directory} (layerfs gc "
            "removes it once that has left)"
        )
    if left:
        click.echo(
            f"layerfs: {directory}: detached; what it is made of stays in the store for the processes in it "
            "(layerfs gc removes it once they have left)",
            err=True,
        )
