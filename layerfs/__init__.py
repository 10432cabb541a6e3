"""layerfs: mount OCI image stores as a browsable, verified, overlay-ready tree.

Programs use ``layerfs.Store`` (docs/embedding.md), which is `layerfs.api.blocking.Store`; on trio and asyncio
`layerfs.api.on_trio` and `layerfs.api.on_asyncio` have the same names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerfs.api.blocking import Image, Lease, Mount, Store, fail_after

__version__ = "0.1.0"

__all__ = ["Image", "Lease", "Mount", "Store", "__version__", "fail_after"]


def __getattr__(name: str) -> Any:
    """Import the API when it is asked for: commands have no use for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerfs.api import blocking

    return getattr(blocking, name)
