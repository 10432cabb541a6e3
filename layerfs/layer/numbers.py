"""Numbers as tar headers write them: octal text, base-256, decimal with a fraction.

Pure; called by `layer.tar`, `layer.pax` and `layer.sparse`. Formats: POSIX.1-2017 pax "ustar Interchange
Format", GNU tar manual "Extensions to Traditional Format" (base-256).
"""

from functools import lru_cache
from typing import Final

from layerfs.errors import InvalidArchive

SECOND: Final = 1_000_000_000
"""In nanoseconds."""

_TIMESTAMP_LENGTH: Final = 32
"""Bytes of the longest one that is worth remembering."""

_LATEST: Final = 1 << 55
"""Seconds; beyond it no clock and no filesystem counts."""


def number(field: bytes, what: str) -> int:
    """Read a numeric header field. Raises InvalidArchive; may return a negative number (base-256)."""
    digits = field[:-1]
    if digits.isdigit() and field[-1] in (0, 0x20):
        try:
            return int(digits, 8)
        except ValueError:
            pass
    elif field[0] & 0x80:
        return _base256(field)
    else:
        # Some old tars write NULs in front of the digits (AIX), or spaces.
        text = field.strip(b"\0 ").partition(b"\0")[0]
        if not text:
            return 0
        if text.isdigit() and not text.strip(b"01234567"):
            return int(text, 8)
    raise InvalidArchive(f"{what}: {field!r} is no number (expected octal or base-256)")


def _base256(field: bytes) -> int:
    """Two's complement, big-endian, the highest bit of the first byte being the mark of the format."""
    value = int.from_bytes(field, "big")
    bits = 8 * len(field)
    if field[0] & 0x40:
        return value - (1 << bits)
    return value - (1 << (bits - 1))


def decimal(text: bytes, what: str) -> int:
    """Read an unsigned decimal number of at most 20 digits behind any zeros. Raises InvalidArchive."""
    digits = text.lstrip(b"0")
    if not text.isdigit() or len(digits) > 20:
        raise InvalidArchive(f"{what}: {text[:40]!r} is no number (expected decimal digits)")
    return int(digits or b"0")


def timestamp(text: bytes) -> int:
    """Read seconds with an optional fraction, as nanoseconds; digits below that are dropped."""
    # Files that were installed together share their times.
    return _timestamp(text) if len(text) > _TIMESTAMP_LENGTH else _remembered_timestamp(text)


def _timestamp(text: bytes) -> int:
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    digits = whole.lstrip(b"0")
    if not whole.isdigit() or len(digits) > 20 or (fraction and not fraction.isdigit()):
        raise InvalidArchive(f"{text[:40]!r} is no time (expected seconds)")
    value = int(digits + fraction[:9].ljust(9, b"0"))
    return check_time(-value if text.startswith(b"-") else value, "the time")


_remembered_timestamp: Final = lru_cache(maxsize=4096)(_timestamp)


def check_time(value: int, what: str) -> int:
    """Return *value*, nanoseconds, unless it is beyond what time_t can mean anywhere."""
    if abs(value) > _LATEST * SECOND:
        raise InvalidArchive(f"{what}: {value} ns is out of range")
    return value
