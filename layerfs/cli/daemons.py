"""What a process does that stays when its command has ended: where it logs, what it lets go of."""

import logging
import os
import sys
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Final

from layerfs.cli import logs
from layerfs.errors import MountError
from layerfs.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from layerfs.fetch.fetcher import Fetcher
    from layerfs.gc.keeper import Keeper
    from layerfs.store import ImageStorage
    from layerfs.supervision import InForce

log = logging.getLogger(__name__)

_VARIABLES: Final = (
    "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "SSL_CERT_FILE", "SSL_CERT_DIR", "LAYERFS_CONFIG", "LAYERFS_STORE",
)  # fmt: skip
"""Variables whose paths count from where the user is."""


def log_in_background(settings: Settings) -> None:
    """Log to the file of the settings, or the default one. Raises MountError."""
    file = settings.log_file or logs.default_log_file(os.environ, os.getuid())
    try:
        logs.log_to_file(file, settings.log_level, as_json=settings.log_json)
    except OSError as exc:
        if exc.errno not in (ENOSPC, EDQUOT):
            raise no_log(file, exc) from exc
        sys.stderr.write(f"layerfs: {file}: {exc.strerror} (expected room for a log); nothing is logged\n")
        logs.log_to_stderr(settings.log_level, as_json=settings.log_json)


def no_log(file: Path, exc: OSError) -> MountError:
    """Return the error of a log *file* that cannot be opened."""
    return MountError(
        f"{file}: cannot log to it: {exc.strerror} "
        "(expected --log-file FILE in a directory that is there and may be written)"
    )


def leave_directory() -> None:
    """Keep no filesystem from being unmounted. Settings are absolute by now; what is read later will be."""
    for name in _VARIABLES:
        if os.environ.get(name):
            os.environ[name] = str(Path.cwd() / os.environ[name])
    os.chdir("/")


async def take_pulls(
    storage: "ImageStorage", provider: "Fetcher", keeper: "Keeper", in_force: "InForce"
) -> None:
    """Pull for commands of this user that ask for it, once the mount answers. Runs until cancelled.

    Raises nothing: what is beside a mount does not end it.
    """
    import trio

    def needed() -> "Callable[[ImageStorage, Fetcher, Keeper, InForce], Awaitable[None]]":
        from layerfs.cli.delegated import serve

        return serve

    await in_force.answers.wait()
    try:
        serve = await trio.to_thread.run_sync(needed)  # importing takes longer than a lookup may
        await serve(storage, provider, keeper, in_force)
    except* Exception:
        log.exception("unexpected failure: no command can have this daemon pull for it")
