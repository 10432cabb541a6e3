"""A helper process for tests: does what its question says."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from layerfs import errors
from layerfs.processes import answering
from layerfs.processes.messages import packed, unpacked


@asynccontextmanager
async def _opened(
    settings: msgspec.Raw, count: Callable[[msgspec.Raw], None]
) -> AsyncIterator[answering.Handler]:
    async def answered(raw: msgspec.Raw, files: tuple[int, ...], told: Callable[[int], None]) -> msgspec.Raw:
        match unpacked(raw, list[str]):
            case ["settings"]:
                return settings
            case ["environment", name]:
                return packed(os.environ.get(name))
            case ["read"]:
                return packed([os.read(fd, 100) for fd in files])
            case ["count", number]:
                for value in range(int(number)):
                    told(value)
                return packed(None)
            case ["tally", *words]:
                count(packed(words))
                return packed(None)
            case ["fail", name]:
                raise errors.named(name, "as asked")
            case ["garbage"]:
                os.write(int(sys.argv[1]), b"\5\0\0\0later")
                return packed(None)
            case _:
                raise ZeroDivisionError

    yield answered


if __name__ == "__main__":
    answering.run(_opened)
