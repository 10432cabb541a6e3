"""What a person gets for an error: an exit code, a line on stderr, and what to do about it. Tables only."""

import sys
from typing import Final

from layerfs import errors

EXIT_CODES: Final[tuple[tuple[type[errors.LayerfsError], int], ...]] = (
    (errors.UsageError, 2),
    (errors.NotFound, 3),
    (errors.PlatformMissing, 3),
    (errors.NotInStore, 3),
    (errors.Denied, 4),
    (errors.RegistryMisbehaved, 1),
    (errors.RegistryError, 5),
    (errors.VerificationError, 6),
    (errors.ReaderGone, 141),
    (errors.LayerfsError, 1),
)
"""The first match counts.

0 is success; 1 any failure, 2 usage, 3 not found, 4 denied, 5 network, 6 verification failed; 141 as of a
program that SIGPIPE ended. `layerfs.cli.interrupts` has those of other signals.
"""

_ADVICE: Final = {
    "NotFound": "check the name; layerfs tags REPOSITORY lists what the registry has",
    "Denied": "log in with layerfs login REGISTRY; the next access tries again",
    "RateLimited": "log in for a higher limit, or try later",
    "Unreachable": "check the network, proxies and the name of the registry; the next access tries again",
    "RegistryTimeout": "the next access goes on where it stopped",
    "RegistryMisbehaved": "a proxy or the registry breaks the protocol; tell its owner",
    "NoRanges": "layers of this registry are fetched whole; the next access does that",
    "Offline": "mount without --offline to fetch it",
    "PlatformMissing": "mount with --platform OS/ARCH",
    "UnsupportedImage": "no container image; there is nothing to extract",
    "SizeMismatch": "a proxy or the registry serves other bytes; try again, then tell its owner",
    "DigestMismatch": "a proxy or the registry serves other bytes; try again, then tell its owner",
    "DiffIdMismatch": "the image contradicts itself; build and push it again",
    "InvalidDocument": "the image is broken; build and push it again",
    "InvalidArchive": "the image is broken; build and push it again",
    "PathEscape": "the image tries to write outside of its layer; do not trust it",
    "InvalidWhiteout": "the image is broken; build and push it again",
    "BudgetExceeded": "raise the limit under [budgets] in config.toml if you trust the image",
    "StoreFull": "make room: layerfs df says what can go, layerfs gc removes it",
    "StoreReadOnly": "the daemon may not write its store",
    "StoreDamaged": "remove what the error names from the store; the next access makes it again",
    "StoreUnfit": "a store on another filesystem can hold it; rootfs of the mount needs no lowerdirs",
    "WaitRefused": "end some of what waits there, or try later",
    "OutOfMemory": "the image is not at fault; once there is memory, the next access tries again",
    "WorkerDied": "perhaps killed for lack of memory (see dmesg); the next access tries again",
}
"""By the name of a class, as `status.json` has it."""
_WAYS: Final = ("mount with --registries", "layerfs login")
"""A message that has one of these says itself what to do."""

_ROOM: Final = "make room"
"""Words of an error that says itself how."""


def exit_code(error: errors.LayerfsError) -> int:
    """Return the exit code that scripts can tell *error* by."""
    return next(code for class_, code in EXIT_CODES if isinstance(error, class_))


def report(error: errors.LayerfsError) -> int:
    """Print *error* to stderr, unless nobody wants to read any more, and return its exit code."""
    if not isinstance(error, errors.ReaderGone):
        sys.stderr.write(f"{told(error)}\n")
    return exit_code(error)


def told(error: errors.LayerfsError) -> str:
    """Return the lines that say *error*."""
    # What to do these do not say themselves: they know the bytes alone, or the one file that did not fit.
    known = isinstance(error, errors.DigestMismatch | errors.SizeMismatch | errors.StoreFull)
    hint = advice(type(error).__name__) if known and _ROOM not in str(error) else ""
    return "\n  asked ".join((f"layerfs: {error.text}{'; ' if hint else ''}{hint}", *error.asked_lines))


def advice(error: str, message: str = "") -> str:
    """Return what helps against the error class *error*, empty if nothing is known or *message* says it."""
    known = _ADVICE.get(error, "")
    return "" if known in message or any(way in message for way in _WAYS) else known
