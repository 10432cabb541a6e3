"""A server in this process, before a store that has an image or two; clients speak bytes to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

from layerfs.needs import Provider
from layerfs.serve.counts import ServerCounts
from layerfs.serve.distribution import Distribution
from layerfs.serve.holding import Holding
from layerfs.serve.limits import ServerLimits
from layerfs.serve.names import Names
from layerfs.serve.server import Server
from layerfs.serving import ServerMetrics
from layerfs.settings import Audience, Settings
from layerfs.store import ImageStorage
from tests.support.images import file, image, layer
from tests.support.serving import fill

SMALL: Final = layer(file("etc/motd", b"hello\n"))
LARGE: Final = layer(file("large", bytes(range(256)) * (1 << 15)), compression="none")
IMAGE: Final = image(SMALL, LARGE)
SECRET: Final = image(layer(file("etc/shadow", b"root:x\n")))
NAME: Final = "registry.test/team/app"
PRIVATE: Final = "registry.test/private/app"


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Scene:
    """A running server."""

    storage: ImageStorage
    port: int
    ended: trio.Event

    async def connect(self) -> trio.SocketStream:
        """Return a connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def say(self, data: bytes) -> bytes:
        """Send *data* and return all that comes until the server closes."""
        async with await self.connect() as stream:
            with trio.fail_after(30):
                try:
                    await stream.send_all(data)
                    return await everything(stream)
                except trio.BrokenResourceError:
                    return b""

    async def ask(self, target: str, *headers: str, method: str = "GET") -> Answer:
        """Ask for *target* on a connection of its own."""
        return parsed(await self.say(request(target, *headers, "Connection: close", method=method)))


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    """Return all bytes until the end."""
    found = bytearray()
    async for chunk in stream:
        found += chunk
    return bytes(found)


def request(target: str, *headers: str, method: str = "GET") -> bytes:
    """Return the bytes of a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: node.test", *headers, "", ""]).encode()


def parsed(raw: bytes) -> Answer:
    """Read one answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, body)


@asynccontextmanager
async def served(
    store: Path,
    *patterns: str,
    limits: ServerLimits | None = None,
    provider: Callable[[ImageStorage], Provider] | None = None,
    audience: Audience = "off",
) -> AsyncIterator[Scene]:
    """Serve a store with `IMAGE` and `SECRET` for a block."""
    storage = await trio.to_thread.run_sync(filled, store)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    ended, ready = trio.Event(), trio.Event()
    met = provider(storage) if provider else None
    distribution = Distribution(storage, Names(storage, patterns), met)
    counts = ServerCounts(audience, ServerMetrics(Settings(store=store), None, None).text)
    server = Server(distribution, Holding(storage), limits or ServerLimits(), counts=counts)
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, [listener], ready.set, ended)
        await ready.wait()
        yield Scene(storage, port, ended)
        nursery.cancel_scope.cancel()


def filled(store: Path) -> ImageStorage:
    """Return a store with both images."""
    storage = ImageStorage(store)
    fill(storage, NAME, "1", IMAGE)
    fill(storage, PRIVATE, "1", SECRET)
    return storage
