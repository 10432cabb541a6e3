"""Libraries, without what they bring along only because it happens to be installed. Uses nothing of layerfs.

msgspec looks for typing_extensions before it takes the same functions from typing, which has had all that it
asks of them since Python 3.11. It brings inspect and ast, a tenth of the start of an extractor.
"""

import importlib
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def without(*names: str, late: Collection[str] = ()) -> Iterator[None]:
    """Have imports of *names* fail in the block, unless somebody has imported them already.

    Those of *late*, which somebody needs who hardly ever uses them, succeed; they run at their first use. A
    program with several threads gets all of it: another thread may import the same at this moment.
    """
    modules: dict[str, Any] = sys.modules
    alone = threading.active_count() == 1
    spared = {name: _Late(name) if name in late else None for name in (*names, *late)}
    spared = {name: stand_in for name, stand_in in spared.items() if alone and name not in modules}
    modules.update(spared)
    try:
        yield
    finally:
        for name in spared:
            modules.pop(name, None)


class _Late(ModuleType):
    """Stands in for a module until something of it is used, for those alone who have imported it already."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # the block has not ended
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


with without("typing_extensions"):
    import msgspec

__all__ = ["msgspec", "without"]
