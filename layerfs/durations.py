"""Lengths of time as Go's programs write them. Pure."""

import re
from typing import Final

_PART: Final = r"(\d{1,9}(?:\.\d{1,3})?)(ms|us|µs|ns|[smh]?)"
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float | None:
    """Read seconds, or a duration of Go: ``90``, ``30s``, ``1h30m``. None for anything else."""
    parts = list(re.finditer(_PART, text, re.ASCII))
    whole = "".join(part[0] for part in parts) == text and all(part[2] for part in parts[:-1])
    seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    return seconds if whole and seconds > 0 else None
