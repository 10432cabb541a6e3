"""Numbers inside an object of a library that has no name for them. Not for objects of Python's own."""

import ctypes
import sys
from typing import Final

_WORD: Final = 8


def places_of(thing: object, number: int) -> list[int]:
    """Return where in the memory of *thing* the 64-bit *number* stands, in bytes from its start."""
    memory = ctypes.string_at(id(thing), sys.getsizeof(thing))
    wanted = number.to_bytes(_WORD, sys.byteorder)
    return [at for at in range(0, len(memory) - _WORD + 1, _WORD) if memory[at : at + _WORD] == wanted]


def put_number(thing: object, place: int, number: int) -> None:
    """Write the 64-bit *number* at *place*, one that `places_of` has found in an object of the same class."""
    ctypes.c_uint64.from_address(id(thing) + place).value = number
