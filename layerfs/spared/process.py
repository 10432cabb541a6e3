"""Spares trio and pyfuse3, in a process of layerfs' own: import this before them.

trio brings what reads names of hosts and speaks TLS, and starts ldconfig(8) to find a library whose name is
known; pyfuse3 reads the metadata of all that is installed to know its own version. A program that embeds
layerfs gets all of it: it may use what nobody here does.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

from layerfs.spared import without


def _library(name: str) -> str | None:
    """Say how a library of the C library is called, as ctypes.util.find_library does by a program."""
    with suppress(ValueError, OSError):
        if os.confstr("CS_GNU_LIBC_VERSION"):
            return f"lib{name}.so.0"
    return None


def _version(name: str) -> str:
    """Say nothing, as for what is imported without having been installed; nobody asks for the version."""
    raise ModuleNotFoundError(name)


_LATE: Final = ("hmac", "idna", "ssl", "subprocess", "traceback")
_GIVEN: Final[Mapping[str, Mapping[str, Any]]] = {
    "ctypes.util": {"find_library": _library},
    "importlib.metadata": {"PackageNotFoundError": ModuleNotFoundError, "version": _version},
    "platform": {"python_implementation": lambda: "PyPy" if sys.implementation.name == "pypy" else "CPython"},
}


class _Sparing:
    """Finds a module as always, once, and has it run without what it can do without (`without`)."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            run = loader.exec_module

            def run_sparing(module: ModuleType) -> None:
                with without(late=_LATE, given=_GIVEN):
                    run(module)

            loader.exec_module = run_sparing
        return spec


for _each in ("trio", "pyfuse3"):
    if _each not in sys.modules:
        sys.meta_path.insert(0, _Sparing(_each))
