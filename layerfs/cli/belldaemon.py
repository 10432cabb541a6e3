"""The mount that lazy overlays ask where the user has made none: started for them, ended with the last.

It is a mount of the store like any other, at a directory of its own below /run, and unmounts itself when no
mount that can be seen shows a skeleton of the store. Then it serves on for overlays that cannot be seen, as
those that were detached while a process is in them: the kernel ends it with the last. Bytes of the store's
lock file keep two commands from starting two, and one from going under a command that is about to mount.
"""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import msgspec

from layerfs.bells import bell_directory, bell_mount
from layerfs.cli import interrupts
from layerfs.cli.daemons import leave_directory, log_in_background, take_pulls
from layerfs.cli.opening import open_store
from layerfs.containers import tocs_in_view
from layerfs.errors import LayerfsError, MountError
from layerfs.host import readiness
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.settings import Access, Settings
from layerfs.status import parse_status
from layerfs.store import ImageStorage
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import MOMENTS_SECONDS, ByteLock, Locks

LOOK_SECONDS: Final = 5.0
"""Seconds between two looks whether somebody needs it. Each reads the mounts of all processes."""

log = logging.getLogger(__name__)


def bell_standby(settings: Settings) -> AbstractContextManager[readiness.Standby | None]:
    """Return a process that finds or becomes a mount to be asked, and says where it is, once told to.

    To be called before there are threads. None where no overlay can ask one.
    """
    if os.geteuid() != 0 or not in_initial_user_namespace():
        return nullcontext()
    return readiness.Standby(lambda ready: _find_or_serve(settings, ready))


def _find_or_serve(settings: Settings, ready: Callable[[bytes], None]) -> None:
    """Say where a mount of the store answers; be one if there is none. Raises LayerfsError."""
    starting = Locks(StoreLayout(settings.store).lock).starting_bell()
    starting.acquire(MOMENTS_SECONDS)
    try:
        found = bell_mount(settings.store)
        if found is None:
            _serve(_lasting(settings), ready, starting)
        else:
            ready(os.fsencode(found))
    finally:
        starting.release()


def _lasting(settings: Settings) -> Settings:
    """Return *settings* as they may hold for other overlays, too. Raises MountError."""
    access = settings.access
    if settings.offline:
        raise MountError("--offline lets none be started")
    if access.creds is not None or access.tls_verify is not None or access.cert_dir is not None:
        raise MountError(
            "--creds, --tls-verify and --cert-dir hold for one call alone, and a daemon serves others, too "
            "(expected a login of layerfs login, --insecure-registry, a certificate in certs.d)"
        )
    return msgspec.structs.replace(settings, access=Access(), allow_other=False, mount_options=())


def _serve(settings: Settings, ready: Callable[[bytes], None], starting: ByteLock) -> None:
    directory = bell_directory(settings.store)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise MountError(f"{directory}: cannot make: {exc.strerror}") from exc
    log_in_background(settings)
    where = Mountpoint.open(directory)

    def announce() -> None:
        readiness.leave_terminal()
        starting.release()
        ready(os.fsencode(directory))

    leave_directory()
    import trio

    from layerfs import app as wiring
    from layerfs.fetch.tasks import background

    async def end() -> None:
        storage = open_store(settings)
        while True:
            await trio.sleep(LOOK_SECONDS)
            if await trio.to_thread.run_sync(_ended, storage, where, abandon_on_cancel=True):
                return

    async def main() -> None:
        async with background() as nursery:
            nursery.start_soon(end)
            await wiring.serve(settings, where, announce, again=lambda: settings, beside=take_pulls)

    interrupts.run(main)


def _ended(storage: ImageStorage, where: Mountpoint) -> bool:
    """Unmount this process's mount unless somebody needs it, and say whether that was done.

    Nobody begins to need it meanwhile; who does later starts another.
    """
    ending = storage.locks.ending_bell()
    try:
        about = parse_status((Path(os.fsdecode(where.inside)) / ".layerfs/status.json").read_bytes())
        if about.pid != os.getpid():
            return True  # it was unmounted by hand, and another began
        if about.waiting or about.fetching or not ending.try_acquire() or tocs_in_view(storage):
            return False
        log.info("no overlay that can be seen needs this mount: unmounting")
        where.unmount(lazy=True)
    except (OSError, msgspec.DecodeError, LayerfsError) as exc:
        log.debug("%s: goes on: %s", where, exc)
        return False
    finally:
        ending.release()
    return True
