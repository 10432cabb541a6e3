"""What a process does that stays when its command has ended: where it logs, what it lets go of."""

import os
import sys
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Final

from layerfs.cli import logs
from layerfs.errors import MountError
from layerfs.settings import Settings

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
