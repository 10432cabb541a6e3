"""What an image may cost the daemon: memory by the layer's record, and how long others wait for it."""

import contextlib
import ctypes
import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from layerfs.layer.budgets import Budgets
from tests.support import clients, daemon, images, rawtar
from tests.support.daemon import Daemon
from tests.support.registry import Registry

log = logging.getLogger(__name__)

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

MOST_MEMORY = 64 << 20
"""Bytes that one image may cost the daemon beyond what it needs when idle."""
LONGEST_PAUSE = 2.0
"""Seconds in which others get no answer: 50 ms are meant, but this machine has other work, too."""

_EACH = 160
_BUDGET = Budgets().max_record_bytes


def resident(pid: int, field: str = "VmRSS") -> int:
    """Return the memory of a process in bytes; its peak with ``VmHWM``."""
    return int(_status(pid, field)) * 1024


def _status(pid: int, field: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1]
    raise AssertionError(f"{pid} is gone")


@contextlib.contextmanager
def costs_little(running: Daemon) -> Iterator[None]:
    """Fail if what happens in the block costs the daemon too much, or keeps others waiting."""
    running.waiting()
    Path(f"/proc/{running.pid}/clear_refs").write_text("5")  # the peak counts from here
    before = resident(running.pid)
    done = threading.Event()
    pauses = [0.0]

    def look() -> None:
        while not done.wait(0.01):
            began = time.monotonic()
            (running.mountpoint / ".layerfs/status.json").stat()
            pauses.append(time.monotonic() - began)

    bystander = threading.Thread(target=look)
    bystander.start()
    try:
        yield
    finally:
        done.set()
        bystander.join()
    cost = resident(running.pid, "VmHWM") - before
    log.info("%d MiB, longest pause %d ms", cost >> 20, max(pauses) * 1000)
    assert cost <= MOST_MEMORY, f"{cost >> 20} MiB"
    assert max(pauses) <= LONGEST_PAUSE


def _attributes(count: int, size: int) -> list[images.Entry]:
    """Return links with an attribute that no filesystem holds of them."""
    return [images.symlink(f"l{n}", "x", xattrs={"user.a": bytes(size)}) for n in range(count)]


@pytest.fixture(scope="module")
def marked() -> list[images.BuiltLayer]:
    """Layers of about as many markers as a record may list."""
    return [*map(_markers, range(3))]


def _markers(number: int) -> images.BuiltLayer:
    count = _BUDGET // (_EACH + len("d/.wh.0x0000000")) - 20
    archive = rawtar.header(b"d/", rawtar.DIRECTORY) + rawtar.numbered(b"d/.wh.%dx" % number, count)
    return images.layer(archive=archive + rawtar.END, compression="zstd")


def test_record_memory(registry: Registry, memory: Path, mountpoint: Path) -> None:
    """A layer of a few kilobytes, most of which no disk can hold, is refused by its budget's name."""
    bomb = images.layer(*_attributes(400, 60_000))
    assert len(bomb.blob) < 1 << 20
    reference = registry.push("cost/record", "latest", images.image(bomb))

    with daemon.running(memory, mountpoint) as running, costs_little(running):
        with pytest.raises(OSError, match="too large") as refused:
            clients.names(running.images / str(reference) / "layers/00/diff")
        assert refused.value.errno == errno.EFBIG
        assert "max_record_bytes" in running.log()


def test_record_memory_at_the_limit(
    registry: Registry, memory: Path, mountpoint: Path, marked: list[images.BuiltLayer]
) -> None:
    """Layers whose records are as long as they may be: fetched, looked at in each form, after a remount."""
    lost = images.layer(*_attributes(190, 64_000), images.file("f"))
    layers = [lost, *marked]
    reference = registry.push("cost/limit", "latest", images.image(*layers))

    for _ in range(2):
        with daemon.running(memory, mountpoint) as running, costs_little(running):
            image = running.images / str(reference)
            assert clients.names(image / "rootfs") > {"d", "f"}
            for number in range(len(layers)):
                for form in ("diff", "lower"):
                    found = clients.run("ls", "-l", image / "layers" / f"{number:02}" / form, timeout=120)
                    assert found.returncode == 0, found.stderr
            clients.run("cat", image / "history")


@pytest.mark.long
def test_record_memory_of_a_cover(
    registry: Registry, memory: Path, mountpoint: Path, marked: list[images.BuiltLayer]
) -> None:
    reference = registry.push("cost/cover", "latest", images.image(*marked))

    with daemon.running(memory, mountpoint) as running, costs_little(running):
        cover = (running.images / str(reference) / "lowerdirs").read_bytes().splitlines()[0]
        assert os.path.isdir(os.path.realpath(cover))


def test_no_memory_left_ends_a_worker_and_not_the_daemon(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    """The kernel chooses by oom_score_adj; and no process that reads what strangers sent can gain rights."""
    reference = registry.push("cost/helpers", "latest", images.image(images.layer(images.file("a"))))

    with daemon.running(store, mountpoint) as running:
        assert clients.names(running.images / str(reference) / "layers/00/diff") == {"a"}
        helpers = [
            *clients.children("layerfs.extract.worker", running.pid),
            *clients.children("layerfs.fetch.downloader", running.pid),
        ]
        writers = [pid for helper in helpers for pid in clients.children("layerfs", helper)]
        found = [_score(pid) for pid in (*helpers, *writers)]
        confined = {_status(pid, "NoNewPrivs") for pid in (*helpers, *writers)}
        own = _score(running.pid)

    assert len(helpers) >= 2
    assert writers
    assert {score - own for score in found} == {min(500, 1000 - own)}
    assert confined == {"1"}


def _score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def _crowd(count: int) -> images.BuiltLayer:
    archive = rawtar.header(b"d/", rawtar.DIRECTORY) + rawtar.numbered(b"d/f", count)
    return images.layer(archive=archive + rawtar.END, compression="zstd")


@pytest.mark.parametrize("many", [20_000, pytest.param(60_000, marks=pytest.mark.long)])
def test_big_directory_memory(registry: Registry, memory: Path, mountpoint: Path, many: int) -> None:
    """Listed in each form, with and without attributes, and looked up name by name."""
    reference = registry.push(f"cost/crowd-{many}", "latest", images.image(_crowd(many)))

    with daemon.running(memory, mountpoint) as running:
        image = running.images / str(reference)
        clients.names(image / "layers/00/diff")
        with costs_little(running):
            for place in ("layers/00/diff/d", "layers/00/lower/d", "rootfs/d"):
                listed = clients.run("ls", "-U", image / place, timeout=120).stdout.splitlines()
                assert len(listed) == len(set(listed)) == many
            found = clients.run("find", image / "rootfs/d", "-size", "0", "-type", "f", timeout=120)
            assert found.stdout.count(b"\n") == many
            for number in range(0, many, 4):
                os.stat(image / f"layers/00/diff/d/f{number:07}")


def test_a_long_listing_goes_back_to_where_it_was_told(
    registry: Registry, memory: Path, mountpoint: Path
) -> None:
    count = 6000
    reference = registry.push("cost/seek", "latest", images.image(_crowd(count)))

    with daemon.running(memory, mountpoint) as running:
        image = running.images / str(reference)
        clients.names(image / "rootfs")
        for place in ("layers/00/diff/d", "layers/00/lower/d", "rootfs/d"):
            with _Directory(image / place) as directory:
                first = [directory.read() for _ in range(3000)]
                there = directory.tell()
                rest = directory.read_all()
                assert len({*first, *rest}) == len(first) + len(rest) == count + 2
                directory.seek(there)
                assert directory.read_all() == rest
                directory.seek(0)
                assert directory.read_all() == [*first, *rest]


_ARENA = 1 << 20
"""Bytes that Python asks for at a time."""


@pytest.mark.long
def test_names_that_only_the_grammar_allows_cost_little(store: Path, mountpoint: Path) -> None:
    forms = ("r{}.example", "a.example/b/c{}", "a.example/b/c:{}")

    def ask(numbers: range) -> None:
        for number in numbers:
            for form in forms:
                (running.images / form.format(number)).lstat()

    with daemon.running(store, mountpoint) as running:
        before = resident(running.pid)
        ask(range(9_000))  # the last 8,192 of each form are known, which is what they may cost
        known = resident(running.pid)
        ask(range(9_000, 21_000))
        after = resident(running.pid)

    assert known - before <= 600 * 8_192 * len(forms)
    assert after - known <= 50 * 12_000 * len(forms) + 2 * _ARENA


class _Directory:
    """A directory as readdir(3) reads it: Python's own functions cannot seek."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.opendir.restype = self._libc.readdir.restype = ctypes.c_void_p
        self._libc.telldir.restype = ctypes.c_long
        self._stream = ctypes.c_void_p(self._libc.opendir(os.fsencode(path)))
        assert self._stream.value is not None

    def read(self) -> bytes:
        """Return the next name, nothing at the end."""
        entry = self._libc.readdir(self._stream)
        return ctypes.string_at(entry + 19) if entry else b""  # after d_ino, d_off, d_reclen and d_type

    def read_all(self) -> list[bytes]:
        """Return all names from here on."""
        return list(iter(self.read, b""))

    def tell(self) -> int:
        """Return where the next name is."""
        return int(self._libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        """Go to what `tell` returned."""
        self._libc.seekdir(self._stream, ctypes.c_long(place))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._libc.closedir(self._stream)


def test_history_blocks_mount(registry: Registry, store: Path, mountpoint: Path) -> None:
    """A config of nearly 4 MiB, whose history everybody asks for again and again."""
    steps = [{"created_by": "RUN " + "x " * 800, "empty_layer": True} for _ in range(1999)]
    built = images.image(images.layer(images.file("a")), history=[{"created_by": "COPY a /"}, *steps])
    assert len(built.config) > 3 << 20
    reference = registry.push("cost/history", "latest", built)

    with daemon.running(store, mountpoint) as running:
        image = running.images / str(reference)
        clients.names(image)
        with costs_little(running):
            sizes = {(image / "history").stat().st_size for _ in range(300)}
            assert sizes == {len(clients.read(image / "history"))}


@pytest.mark.parametrize(("limit", "value"), [("max_image_bytes", 15_000), ("max_image_entries", 3)])
def test_the_layers_of_an_image_have_a_budget_together(
    registry: Registry, store: Path, mountpoint: Path, tmp_path: Path, limit: str, value: int
) -> None:
    layers = [images.layer(images.file(f"a{n}"), images.file(f"b{n}", bytes(4096))) for n in range(2)]
    reference = registry.push(f"cost/{limit.replace('_', '-')}", "latest", images.image(*layers))
    (tmp_path / "config.toml").write_text(f"[budgets]\n{limit} = {value}\n")

    with daemon.running(
        store, mountpoint, environment={"LAYERFS_CONFIG": str(tmp_path / "config.toml")}
    ) as running:
        image = running.images / str(reference)
        assert clients.names(image / "layers/00/diff") == {"a0", "b0"}
        with pytest.raises(OSError, match="too large"):
            clients.names(image / "rootfs")
        assert f"({limit} is {value})" in running.log()
