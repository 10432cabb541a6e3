"""httpx and httpcore, without what they bring along only because it happens to be installed.

Where Click is installed httpx imports its command line, which takes longer than all the rest, and a decoder
for each coding; httpcore imports anyio beside trio. They do without what cannot be imported, and so do we:
`layerfs.registry.encoding` decodes bodies. A program with several threads gets all of it: another thread may
import the same at this moment.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_SPARED: Final = ("httpx._main", "zstandard", "brotli", "brotlicffi", "anyio")


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Have imports of *names* fail in the block, unless somebody has imported them already."""
    modules: dict[str, Any] = sys.modules
    spared = [name for name in names if name not in modules and threading.active_count() == 1]
    modules.update(dict.fromkeys(spared))
    try:
        yield
    finally:
        for name in spared:
            del modules[name]


with _without(_SPARED):
    import httpcore
    import httpx

__all__ = ["httpcore", "httpx"]
