"""The C library, for the system calls that Python does not have.

Every other module of `layerfs.host` that needs ctypes goes through `call`, so an errno is turned into an
OSError in one place only. Must not import anything of layerfs but errors.
"""

import os
from functools import cache
from typing import Any


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any, thing: bytes | str | None = None) -> int:
    """Call the C function *name* and return its result. Raises OSError, naming *thing*, when it is -1.

    Integers are passed as C long, so that a negative or a wide one arrives whole. The GIL is released.
    """
    import ctypes  # many commands make no such call

    converted = [ctypes.c_long(value) if type(value) is int else value for value in arguments]
    ctypes.set_errno(0)
    result: int = getattr(_libc(), name)(*converted)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", thing)
    return result


def syscall(name: str, number: int, *arguments: Any, thing: bytes | str | None = None) -> int:
    """Make the system call *number* (called *name* in errors). Raises OSError."""
    try:
        return call("syscall", number, *arguments, thing=thing)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {os.strerror(error.errno or 0)}", thing) from None
