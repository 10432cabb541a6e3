"""Too little of everything: descriptors, memory, file size, processor, room; processes that stand still."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks import ground
from tests.attacks.ground import Ground
from tests.support import clients, daemon, mounts
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_OPTIONS = {"descriptors": "-n", "memory (KiB)": "-v", "file size (512 bytes)": "-f", "processor (s)": "-t"}
_VALUES = {
    "descriptors": (8, 12, 16, 20, 24, 28, 32, 48, 64, 128),
    "memory (KiB)": (20_000, 60_000, 100_000, 150_000, 200_000, 300_000, 400_000, 800_000),
    "file size (512 bytes)": (0, 1, 10, 100, 1000, 3000),
    "processor (s)": (1,),
}
_IN_EACH_RUN = {("descriptors", 24), ("file size (512 bytes)", 1000)}


@pytest.mark.parametrize(
    ("what", "value"),
    [
        pytest.param(what, value, marks=[] if (what, value) in _IN_EACH_RUN else pytest.mark.long)
        for what, values in _VALUES.items()
        for value in values
    ],
)
def test_a_limit_harms_nothing(attacked: Ground, memory: Path, what: str, value: int) -> None:
    store = memory / "store"
    shell = ["sh", "-c", f'ulimit {_OPTIONS[what]} {value}; exec "$@"', "sh"]

    done = ground.pull(store, attacked.names[0], before=shell)

    attacked.nothing_runs()
    if store.exists():
        found = attacked.compare(store)
        assert done.returncode or found == len(attacked.images[0].layers), done.stderr
    attacked.heal(store, first=1)


_ROOM = [("size", 300 + 400 * n, "k") for n in range(30)] + [
    ("nr_inodes", 20 + 20 * n, "") for n in range(30)
]


@pytest.mark.parametrize(
    ("option", "value", "unit"),
    [pytest.param(*row, marks=[] if n == 8 else pytest.mark.long) for n, row in enumerate(_ROOM)],
)
def test_a_disk_of_any_size_is_full_without_harm(
    attacked: Ground, tmp_path: Path, option: str, value: int, unit: str
) -> None:
    with mounts.tmpfs(tmp_path / "disk", f"{option}={value}{unit}", "mode=755") as disk:
        done = ground.pull(disk / "store", attacked.names[1])

        attacked.nothing_runs()
        assert done.returncode == 0 or "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        if (disk / "store/owner.json").exists():
            attacked.compare(disk / "store")
        subprocess.run(["mount", "-o", "remount,size=100m,nr_inodes=0", disk], check=True)
        attacked.heal(disk / "store", first=2)


def _in(running: Daemon, name: str) -> Path:
    return running.images / name


_HELPERS: dict[str, Callable[[int], list[int]]] = {
    "downloader": lambda pid: clients.children("layerfs.fetch.downloader", pid),
    "worker": lambda pid: clients.children("layerfs.extract.worker", pid),
    "writer": lambda pid: [
        writer
        for worker in clients.children("layerfs.extract.worker", pid)
        for writer in clients.children("layerfs.extract.worker", worker)
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("name", _HELPERS)
def test_a_helper_that_stands_still_delays_who_needs_it_only(
    attacked: Ground, memory: Path, mountpoint: Path, name: str
) -> None:
    with daemon.running(memory / "store", mountpoint) as running:
        first, second = (_in(running, name) for name in attacked.names[:2])
        assert "tool" in clients.names(first / "layers/00/diff/base")
        stopped = _HELPERS[name](running.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        with clients.started("ls", second / "layers/01/diff/small") as waiting:
            assert "tool" in clients.names(first / "layers/00/lower/base")
            assert running.waiting() >= 0
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            done = clients.finish(waiting)

    assert stopped
    assert done.returncode == 0
    attacked.nothing_runs()
    attacked.heal(memory / "store")


@pytest.mark.long
@pytest.mark.parametrize("name", _HELPERS)
def test_a_helper_that_stands_still_ends_with_its_daemon(
    attacked: Ground, memory: Path, mountpoint: Path, name: str
) -> None:
    with daemon.running(memory / "store", mountpoint) as running:
        clients.names(_in(running, attacked.names[0]) / "layers/00/diff/base")
        stopped = _HELPERS[name](running.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        with clients.started("ls", _in(running, attacked.names[1]) / "layers/01/diff/small") as waiting:
            assert running.stop() == 0
            clients.finish(waiting)
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    attacked.nothing_runs()
    attacked.heal(memory / "store")


@pytest.mark.long
@pytest.mark.allow_warnings
@pytest.mark.parametrize("remade", [False, True])
def test_a_store_that_is_taken_away_ends_no_daemon(
    attacked: Ground, memory: Path, mountpoint: Path, remade: bool
) -> None:
    store = memory / "store"
    with daemon.running(store, mountpoint) as running:
        clients.names(_in(running, attacked.names[0]) / "layers/00/diff")
        store.rename(memory / "taken")
        if remade:
            assert ground.pull(store, attacked.names[1]).returncode == 0
        for name in attacked.names:
            with clients.started(
                "tar", "-C", _in(running, name) / "rootfs/", "-cf", "/dev/null", "."
            ) as reader:
                clients.finish(reader)
        assert running.stop() == 0

    attacked.nothing_runs()
    for place in (store, memory / "taken"):
        if place.exists():
            attacked.compare(place)
            attacked.heal(place)


@pytest.mark.allow_warnings
def test_a_store_that_becomes_read_only_serves_what_it_has(
    attacked: Ground, tmp_path: Path, mountpoint: Path
) -> None:
    with mounts.tmpfs(tmp_path / "disk", "mode=755") as disk:
        with daemon.running(disk / "store", mountpoint) as running:
            here, missing = (
                _in(running, attacked.names[0]) / f"layers/{layer}/diff" for layer in ("00", "01")
            )
            assert clients.names(here) == {"base"}
            clients.wait_until(
                lambda: (
                    not subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True).returncode
                )
            )
            assert "tool" in clients.names(here / "base")
            with pytest.raises(OSError, match="Read-only"):
                clients.names(missing)
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            assert clients.names(missing) == {"large"}
        attacked.nothing_runs()
        attacked.heal(disk / "store")
