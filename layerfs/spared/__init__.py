"""Libraries, without what they bring along only because it happens to be installed. Uses nothing of layerfs.

msgspec looks for typing_extensions before it takes the same functions from typing, which has had all that it
asks of them since Python 3.11. It brings inspect and ast, a tenth of the start of an extractor. pathlib,
logging, and uuid, which msgspec wants, bring what reads addresses, source lines and the output of programs.
"""

import importlib
import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final


@contextmanager
def without(
    *names: str, late: Collection[str] = (), given: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[None]:
    """Have imports of *names* fail in the block, unless somebody has imported them already.

    Those of *late*, which somebody needs who hardly ever uses them, succeed; they run at their first use. So
    do those of *given*, whose values they have until then, each what the module itself would say. A program
    with several threads gets all of it: another thread may import the same at this moment.
    """
    modules: dict[str, Any] = sys.modules
    alone = threading.active_count() == 1
    stand_ins = {name: _Late(name, {}) for name in late}
    stand_ins |= {name: _Late(name, values) for name, values in (given or {}).items()}
    spared: dict[str, _Late | None] = {**dict.fromkeys(names), **stand_ins}
    spared = {name: stand_in for name, stand_in in spared.items() if alone and name not in modules}
    modules.update(spared)
    try:
        for name, stand_in in spared.items():
            package, _, part = name.rpartition(".")
            if stand_in is not None and package:  # ``import package.part`` alone would not do that
                setattr(importlib.import_module(package), part, stand_in)
        yield
    finally:
        for name, stand_in in spared.items():
            if modules.get(name) is stand_in:  # and not the module, which was used already
                modules.pop(name, None)


class _Late(ModuleType):
    """Stands in for a module until something of it is used, for those alone who have imported it already."""

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # asked for by each ``from module import name``, which is no use of it
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # the block has not ended
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


_LATE: Final = ("ipaddress", "msgspec.inspect", "textwrap", "traceback")
_GIVEN: Final = {"platform": {"machine": lambda: os.uname().machine, "system": lambda: os.uname().sysname}}
"""What layerfs asks, and uuid as it is imported. The module compiles a dozen regular expressions first."""

with without("typing_extensions", late=_LATE, given=_GIVEN):
    import logging  # noqa: F401 - here, as pathlib is
    import pathlib  # noqa: F401
    import platform

    import msgspec

__all__ = ["msgspec", "platform", "without"]
