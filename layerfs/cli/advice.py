"""What to do about an error that a daemon noted, by its class. A table for people; decides nothing."""

from typing import Final

_ADVICE: Final = {
    "NotFound": "check the name; layerfs tags REPOSITORY lists what the registry has",
    "Denied": "log in with layerfs login REGISTRY; the next access tries again",
    "RateLimited": "log in for a higher limit, or try later",
    "Unreachable": "check the network, proxies and the name of the registry; the next access tries again",
    "RegistryTimeout": "the next access goes on where it stopped",
    "RegistryMisbehaved": "a proxy or the registry breaks the protocol; tell its owner",
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
    "StoreFull": "make room: layerfs df says what can go",
    "StoreReadOnly": "the daemon may not write its store",
    "StoreDamaged": "remove what the error names from the store; the next access makes it again",
    "WorkerDied": "perhaps killed for lack of memory (see dmesg); the next access tries again",
}


def advice(error: str) -> str:
    """Return what helps against the error class *error*, empty if nothing is known."""
    return _ADVICE.get(error, "")
