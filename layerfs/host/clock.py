"""Whether somebody keeps the clock of this machine right."""

import ctypes
from errno import EPERM
from typing import Final

from layerfs.host.libc import call

_TIMEX_BYTES: Final = 208
"""sizeof(struct timex) with 64-bit longs (include/uapi/linux/timex.h); its first field 0 means: only look."""
_TIME_ERROR: Final = 5
"""What adjtimex(2) returns for a clock that nothing synchronises."""


def is_synchronised() -> bool | None:
    """Say whether the kernel was told that the clock is right; None where a sandbox keeps that to itself.

    Raises OSError.
    """
    try:
        return call("adjtimex", ctypes.create_string_buffer(_TIMEX_BYTES)) != _TIME_ERROR
    except OSError as error:
        if error.errno == EPERM:
            return None
        raise
