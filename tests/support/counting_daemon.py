"""A mount of a store, with nobody to fetch, that tells how large its tables are.

``python -m tests.support.counting_daemon STORE MOUNTPOINT FILE`` writes the number of nodes that the kernel
knows, and of all that live, into FILE several times a second.
"""

import gc
import sys
from pathlib import Path

import trio

from layerfs.errors import NotInStore
from layerfs.fuse import session
from layerfs.host.mountpoint import Mountpoint
from layerfs.needs import Need
from layerfs.oci import Platform
from layerfs.settings import Settings
from layerfs.store import ImageStorage
from layerfs.view import tree
from layerfs.view.nodes import Node

_PAUSE = 0.2


class _Nobody:
    """A provider that has nothing."""

    async def obtain(self, need: Need) -> None:
        raise NotInStore(f"{need}: nobody fetches here")


class _Silence:
    """A status source."""

    def read(self) -> bytes:
        return b"{}\n"

    def events(self) -> bytes:
        return b"{}\n"

    def metrics(self) -> bytes:
        return b""


async def main(store: str, mountpoint: str, file: str) -> None:
    """Serve until unmounted."""
    settings = Settings(store=Path(store), fetch_timeout=5)
    view = tree.build(ImageStorage(settings.store), mountpoint, Platform("linux", "amd64"), _Silence())

    async def tell() -> None:
        while True:
            living = 0
            if len(view.inodes) < _FEW:
                living = sum(isinstance(one, Node) for one in gc.get_objects())
            Path(f"{file}.new").write_text(f"{len(view.inodes)} {living}")  # noqa: ASYNC240 - a few bytes
            Path(f"{file}.new").rename(file)  # noqa: ASYNC240 - as above; whoever reads it finds it whole
            await trio.sleep(_PAUSE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await session.serve(view, _Nobody(), Mountpoint.open(mountpoint), settings, ready=lambda: None)
        nursery.cancel_scope.cancel()


_FEW = 5_000
"""Above, nobody asks how many live, and looking at all objects takes long."""

if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
