"""One mount from mount(2) to umount(2): options, the loop, signals, the end.

A process has one session: pyfuse3 keeps it in globals.
"""

import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from errno import ENODEV, ENOENT, ENXIO
from typing import Final

import pyfuse3
import trio

from layerfs.errors import MountError
from layerfs.fuse import polling
from layerfs.fuse.operations import Operations
from layerfs.fuse.served import ServedTree
from layerfs.fuse.waiting import Waits
from layerfs.host.kernel import raise_read_ahead
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.mounts import FSNAME
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.host.replacing import Replacement, replacing
from layerfs.needs import Provider
from layerfs.settings import Settings

log = logging.getLogger(__name__)

MAX_TASKS: Final = 100_000
"""Requests in work at once. A waiting one occupies a task; with too few tasks nobody else is served."""

SWITCH_SECONDS: Final = 1e-4
"""How long another Python thread may keep the interpreter while a request is there."""

COLLECTIONS: Final = (2_000, 2, 6_000)
"""Thresholds of the garbage collector: young objects are visited in two milliseconds at most, as nobody is
served meanwhile, all once in a long time."""

_BASE_OPTIONS: Final = frozenset(
    # No max_read: libfuse 3.14 ends the session if pyfuse3 did not ask for the same at its start.
    {"ro", "nosuid", "nodev", "subtype=layerfs"}
)
_PERMISSIONS: Final = "default_permissions"
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(
    tree: ServedTree,
    provider: Provider,
    mountpoint: Mountpoint,
    settings: Settings,
    *,
    ready: Callable[[], None],
    hang_up: Callable[[], Awaitable[None]] | None = None,
    replace: bool = False,
) -> None:
    """Mount *tree* and serve it until it is unmounted, a signal says to end, or the call is cancelled.

    SIGHUP says so unless this process ignores it; with *hang_up* it calls that instead.
    With *replace* it takes the place of the mount that is at *mountpoint*, once it answers.

    *ready* is called once the mount answers. Raises MountError; whatever happens, nothing stays mounted.
    """
    options = _options(settings.mount_options, allow_other=settings.allow_other)
    sys.setswitchinterval(SWITCH_SECONDS)
    _raise_descriptor_limit()
    waits = Waits(settings.fetch_timeout)
    operations = Operations(tree, provider, waits, disk=str(settings.store))
    with replacing(mountpoint) if replace else nullcontext() as replacement:
        place = mountpoint if replacement is None else replacement.place
        device, places = _mount(operations, place, options), {mountpoint, place}
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits.run)
                nursery.start_soon(_heed_signals, nursery.cancel_scope, hang_up)
                nursery.start_soon(_announce, place, replacement, ready)
                with polling.installed(pyfuse3, spin(settings)):
                    _spare_collections()
                    await pyfuse3.main(max_tasks=MAX_TASKS)
                places.clear()  # it was unmounted, and autofs would mount it anew for who looks there
                nursery.cancel_scope.cancel()
        except* OSError as group:
            raise MountError(f"{mountpoint}: the mount ended: {_first(group)}") from group
        finally:
            _unmount(places, device)
            operations.close()


def spin(settings: Settings) -> float:
    """Return for how many seconds the loop looks at the device before it lets its thread sleep."""
    return polling.spin_seconds() if settings.poll else 0.0


def _options(more: Sequence[str], *, allow_other: bool) -> frozenset[str]:
    """Return the words of the mount.

    A private mount is readable by its user only. ``default_permissions`` would apply the owners and modes of
    the archive to that user and deny access, so it is left out.
    """
    named = any(word.startswith("fsname=") for word in more)
    options = _BASE_OPTIONS | set(more) | (set() if named else {f"fsname={FSNAME}"})
    if allow_other:
        return options | {_PERMISSIONS, "allow_other"}
    plain = os.geteuid() != 0 or not in_initial_user_namespace()
    return options if plain else options | {_PERMISSIONS}


def _spare_collections() -> None:
    """Look at what lives long only rarely: with a million nodes one full collection takes longer than a wait.

    Nodes are no garbage when the kernel forgets them, and what was imported stays: little is to collect.
    """
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as we may have: each large open file and each waiting caller has one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _unmount(places: set[Mountpoint], device: tuple[int, int] | None) -> None:
    """End the session, and unmount what it serves wherever it is on top of one of *places*.

    libfuse would unmount what is there, though it were another mount: one that replaced this one.
    """
    try:
        for place in places:
            mounted = place.mount()
            if mounted is not None and mounted.device == device:
                place.unmount(lazy=True)
    finally:
        pyfuse3.close(unmount=False)


def _mount(operations: Operations, mountpoint: Mountpoint, options: frozenset[str]) -> tuple[int, int] | None:
    """Mount, and return the device of the files in it."""
    mountpoint.clean_up()
    found = mountpoint.mount()
    if found is not None and found.is_layerfs:
        raise MountError(f"{mountpoint}: a layerfs mount is there already (layerfs umount {mountpoint})")
    # fusermount3, which mounts for all but root, wants a name; it holds and checks the directory itself.
    target = mountpoint.target if os.geteuid() == 0 else mountpoint.path
    try:
        pyfuse3.init(operations, os.fsdecode(target), set(options))
    except RuntimeError as error:
        advice = _advice(mountpoint, options)
        raise MountError(f"{mountpoint}: cannot mount{advice or f': {error}'}") from error  # a name of C
    mountpoint.let_go()  # a descriptor below the mount is a use to autofs, which then would never expire it
    mounted = mountpoint.mount()
    return None if mounted is None else mounted.device


def _advice(mountpoint: Mountpoint, options: frozenset[str]) -> str:
    """Say what is probably missing; libfuse has printed its own words to stderr only."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, ENXIO):
            return " (there is no /dev/fuse: modprobe fuse, or start the container with --device /dev/fuse)"
        return f" (/dev/fuse: {error.strerror})"
    if "allow_other" in options and os.geteuid() != 0:
        return " (--allow-other needs user_allow_other in /etc/fuse.conf)"
    if os.geteuid() == 0:
        return ""
    import shutil  # only now

    if shutil.which("fusermount3") is None:
        return " (there is no fusermount3: install the package fuse3)"
    if not os.access(mountpoint.path, os.W_OK):
        return " (expected a directory that you may write to)"
    return " (fusermount3 takes no directories on some filesystems, ramfs for instance: use one below /tmp)"


async def _announce(place: Mountpoint, replacement: Replacement | None, ready: Callable[[], None]) -> None:
    """Wait until the mount answers, improve its read-ahead, tell whoever waits for the mount."""

    def look() -> None:
        raise_read_ahead(os.stat(place.inside).st_dev)
        if replacement is not None:
            replacement.take_over()

    # In a thread, because this process is the one that answers the stat.
    await trio.to_thread.run_sync(look, abandon_on_cancel=True)
    ready()


async def _heed_signals(scope: trio.CancelScope, hang_up: Callable[[], Awaitable[None]] | None) -> None:
    ignored = hang_up is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [number for number in _END_SIGNALS if number != signal.SIGHUP or not ignored]
    with trio.open_signal_receiver(*numbers) as signals:
        async for number in signals:
            if number == signal.SIGHUP and hang_up is not None:
                await hang_up()
                continue
            log.info("%s: unmounting", signal.Signals(number).name)
            scope.cancel()
            return


def _first(group: BaseExceptionGroup[OSError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
