"""What an image may cost the daemon: memory by the layer's record, and how long others wait for it."""

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

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


def _markers(number: int) -> images.BuiltLayer:
    """Return a layer of about as many markers as a record may list."""
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


def test_record_memory_at_the_limit(registry: Registry, memory: Path, mountpoint: Path) -> None:
    """Layers whose records are as long as they may be: fetched, looked at in each form, after a remount."""
    lost = images.layer(*_attributes(190, 64_000), images.file("f"))
    layers = [lost, *map(_markers, range(3))]
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


def test_record_memory_of_a_cover(registry: Registry, memory: Path, mountpoint: Path) -> None:
    layers = [*map(_markers, range(3))]
    reference = registry.push("cost/cover", "latest", images.image(*layers))

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
