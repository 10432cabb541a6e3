"""From an error to an exit code and a line on stderr. One table, in order: the first match counts."""

import sys
from typing import Final

from layerfs import errors

INTERRUPTED: Final = 130
"""As a shell reports a process that Ctrl-C ended."""

EXIT_CODES: Final[tuple[tuple[type[errors.LayerfsError], int], ...]] = (
    (errors.UsageError, 2),
    (errors.NotFound, 3),
    (errors.PlatformMissing, 3),
    (errors.NotInStore, 3),
    (errors.Denied, 4),
    (errors.RegistryMisbehaved, 1),
    (errors.RegistryError, 5),
    (errors.VerificationError, 6),
    (errors.LayerfsError, 1),
)
"""0 is success; 1 any failure, 2 usage, 3 not found, 4 denied, 5 network, 6 verification failed."""


def exit_code(error: errors.LayerfsError) -> int:
    """Return the exit code that scripts can tell *error* by."""
    return next(code for class_, code in EXIT_CODES if isinstance(error, class_))


def report(error: errors.LayerfsError) -> int:
    """Print *error* to stderr and return its exit code."""
    sys.stderr.write(f"layerfs: {error}\n")
    return exit_code(error)
