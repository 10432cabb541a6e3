"""Sizes and times as people read them: decimal units, as podman and docker print."""

from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_size(count: float) -> str:
    """Return *count* bytes like ``29.1 MB``."""
    unit = 0
    while count >= 999.95 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def iso_time(seconds: float) -> str:
    """Return seconds since the epoch like ``2026-11-24T07:22:10Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
