"""A daemon for tests of the kernel edge: serves a tree of `memory_tree` and counts its requests.

``python -m tests.support.edge_daemon MOUNTPOINT CONTROL [--directory DIR] [--fetch-timeout S]``. A process of
its own, because one that reads its own FUSE mount waits for itself. The counts are in ``CONTROL/requests``:
`Requests` reads them without causing any.
"""

import argparse
import itertools
import logging
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import trio

from layerfs.fuse import session
from layerfs.fuse.operations import Operations
from layerfs.fuse.passing import FILES
from layerfs.host.mountpoint import Mountpoint
from layerfs.settings import Settings
from tests.support.memory_tree import ControlledProvider, directory_tree, memory_tree

OPERATIONS = (
    "lookup", "forget", "getattr", "readlink", "open", "read", "release", "opendir", "readdir", "releasedir",
    "getxattr", "listxattr", "statfs", "flush", "access", "setattr", "fsync", "forgotten", "beats",
)  # fmt: skip
_NO_HANDLERS = ("forgotten", "beats")
BEAT_SECONDS = 5e-3


class Requests:
    """The counters of a running daemon."""

    def __init__(self, control: Path) -> None:
        self._file = control / "requests"

    def read(self) -> dict[str, int]:
        """Return the counts since the start, of those that are not 0."""
        numbers = struct.unpack(f"<{len(OPERATIONS)}Q", self._file.read_bytes())
        return {name: number for name, number in zip(OPERATIONS, numbers, strict=True) if number}

    @contextmanager
    def during(self) -> Iterator[dict[str, int]]:
        """Yield a dictionary that holds, after the block, what was asked in it."""
        before = self.read()
        asked: dict[str, int] = {}
        yield asked
        for name, number in self.read().items():
            if name == "beats":
                continue
            if difference := number - before.get(name, 0):
                asked[name] = difference


def counting(operations: type[Operations], counters: mmap.mmap) -> type[Operations]:
    """Return a subclass that counts its requests into *counters*."""

    def count(index: int, handler: Any, amount: Any = None) -> Any:
        @wraps(handler)
        async def counted(self: Operations, *arguments: Any) -> Any:
            (old,) = struct.unpack_from("<Q", counters, index * 8)
            struct.pack_into("<Q", counters, index * 8, old + 1)
            if amount is not None:
                where = OPERATIONS.index("forgotten") * 8
                (old,) = struct.unpack_from("<Q", counters, where)
                struct.pack_into("<Q", counters, where, old + amount(*arguments))
            return await handler(self, *arguments)

        return counted

    body = {
        name: count(index, getattr(operations, name), _forgotten if name == "forget" else None)
        for index, name in enumerate(OPERATIONS)
        if name not in _NO_HANDLERS
    }
    return type("Counting", (operations,), body)


def _forgotten(inodes: list[tuple[int, int]]) -> int:
    return sum(times for _, times in inodes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mountpoint")
    parser.add_argument("control", type=Path)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--fetch-timeout", type=float, default=60.0)
    parser.add_argument("--allow-other", action="store_true")
    parser.add_argument("--fast", action="store_true", help="count nothing")
    parser.add_argument("--files", type=int, default=FILES, help="how many the kernel may remember")
    parser.add_argument("--beat", action="store_true", help="count that the loop runs")
    given = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("pyfuse3").setLevel(logging.WARNING)
    provider = ControlledProvider(given.control)
    made: list[Operations] = []

    def stats() -> dict[str, int]:
        (operations,) = made
        return {
            "files": len(operations._files),
            "listings": len(operations._listings),
            "waits": len(operations._waits),
            "asked": sum(provider.asked.values()),
        }

    if given.directory:
        tree = directory_tree(given.directory)
    else:
        scratch = given.control / "scratch"
        scratch.mkdir()
        tree = memory_tree(provider, scratch, stats)
    with open(given.control / "requests", "w+b") as file:
        file.write(bytes(8 * len(OPERATIONS)))
        file.flush()
        counters = mmap.mmap(file.fileno(), 0)
    kind = Operations if given.fast else counting(Operations, counters)

    def make(*arguments: Any, **named: Any) -> Operations:
        made.append(kind(*arguments, files=given.files, **named))
        return made[0]

    setattr(session, "Operations", make)  # noqa: B010 - the one seam; mypy would not let us
    serve = partial(
        session.serve,
        tree,
        provider,
        Mountpoint.open(given.mountpoint),
        Settings(store=given.control, fetch_timeout=given.fetch_timeout, allow_other=given.allow_other),
        ready=lambda: logging.info("ready"),
    )

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            if given.beat:
                nursery.start_soon(_beat, counters)
            await serve()
            nursery.cancel_scope.cancel()

    trio.run(run)


async def _beat(counters: mmap.mmap) -> None:
    """Count, every few milliseconds, that the loop still runs."""
    for number in itertools.count(1):
        struct.pack_into("<Q", counters, OPERATIONS.index("beats") * 8, number)
        await trio.sleep(BEAT_SECONDS)


if __name__ == "__main__":
    main()
