"""Inputs in a registry on loopback, and mounts with empty stores that fetch them from there.

For `scripts/bench overlap` and `scripts/bench beside`: all through the product, as a user would, by opening
what is not there yet.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib import machine
from benchlib.inputs import Input
from benchlib.results import NotAble
from benchlib.served import built
from tests.support import daemon, images
from tests.support.registry import Registry

_PIECE: Final = 1 << 16
_QUEUE: Final = 1 << 17
"""Bytes that the kernel may keep on each side of a throttle."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer behind a mount, which may not be there yet."""

    path: Path

    @property
    def tree(self) -> Path:
        """What it holds."""
        return self.path / "diff"

    def download(self) -> float:
        """Have the blob and no more; return the seconds."""
        return _seconds(lambda: os.close(os.open(self.path / "blob", os.O_RDONLY)))

    def extract(self) -> float:
        """Have the tree, and the blob if it is missing; return the seconds."""
        return _seconds(lambda: os.listdir(self.tree))


@dataclass(frozen=True, slots=True)
class Mount:
    """A daemon with an empty store, which knows the manifests of all inputs."""

    daemon: daemon.Daemon
    registry: str

    def layer(self, given: Input) -> Layer:
        """Name the layer of an input."""
        return Layer(self.daemon.images / self.registry / "bench" / f"{given.name}:latest" / "layers/00")


class Source:
    """A registry with an image for each of *inputs*. A context manager; everything lies below *base*."""

    def __init__(self, base: Path, inputs: Sequence[Input]) -> None:
        self._base = base
        self._inputs = inputs
        self.registry = Registry(base / "registry")

    def __enter__(self) -> "Source":
        self.registry.start()
        for given in self._inputs:
            self.registry.push("bench/" + given.name, "latest", images.image(built(given)))
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.stop()

    @contextlib.contextmanager
    def mounted(
        self, host: str = "", command: Callable[[Path, Path], list[str]] | None = None
    ) -> Iterator[Mount]:
        """Mount a new store for a block; *host* leads to the registry, *command* makes the daemon's argv.

        What it has done before: read all manifests and extracted (tiny), so that the HTTP client and a worker
        are warm.
        """
        place = self._base / "mounts" / str(time.monotonic_ns())
        store, mountpoint = place / "store", place / "mnt"
        place.mkdir(parents=True)
        argv = command(store, mountpoint) if command else None
        try:
            with daemon.running(store, mountpoint, command=argv) as running:
                mount = Mount(running, host or self.registry.host)
                for given in self._inputs:
                    os.listdir(mount.layer(given).path)
                    if given.name == "tiny":
                        mount.layer(given).extract()
                yield mount
        except daemon.DaemonFailed as exc:
            raise NotAble(str(exc)[-200:]) from exc
        finally:
            machine.run(["rm", "-rf", place])  # trees may be deeper than shutil goes


class Throttle:
    """Forwards connections to a port of this machine, and lets *rate* bytes a second come back.

    Over all of them together, or over *each*. What goes there waits *delay* seconds. A context manager;
    ``host`` is where it listens, ``passed`` how many bytes came back. It runs in threads of the bench, whose
    other threads wait meanwhile.
    """

    def __init__(
        self, port: int, rate: float, delay: float = 0, address: str = "127.0.0.1", *, each: bool = False
    ) -> None:
        self.passed = 0
        self.asked: list[float] = []
        """When something was sent there, by time.monotonic(): a request each, of clients without TLS."""
        self._each = each
        self._port = port
        self._rate = rate
        self._delay = delay
        self._listener = socket.create_server((address, 0))
        self.host = f"{address}:{self._listener.getsockname()[1]}"
        self._free_at: dict[socket.socket | None, float] = {}
        self._turn = threading.Lock()

    def __enter__(self) -> "Throttle":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for one in (client, server):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
                    # No line waits 40 ms for an acknowledgement, and so does no registry.
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, limited: bool) -> None:
        piece = memoryview(bytearray(_PIECE))
        with contextlib.suppress(OSError):
            while count := source.recv_into(piece):
                if limited:
                    self._wait(count, source if self._each else None)
                else:
                    self.asked.append(time.monotonic())
                    time.sleep(self._delay)
                target.sendall(piece[:count])
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _wait(self, count: int, whose: socket.socket | None) -> None:
        """Sleep until *count* bytes may pass; what was not used for a moment is lost."""
        with self._turn:
            self.passed += count
            now = time.monotonic()
            self._free_at[whose] = max(self._free_at.get(whose, 0), now) + count / self._rate
            pause = self._free_at[whose] - now
        if pause > 0.002:  # shorter sleeps are inexact; the sum is not
            time.sleep(pause)


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
