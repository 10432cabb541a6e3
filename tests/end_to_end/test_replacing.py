"""``layerfs mount --replace``: a new daemon takes the place of the old one, and nobody who reads notices."""

import json
import os
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.support import clients, daemon, images, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_BENEATH = (6, 5)
"""The Linux that has MOVE_MOUNT_BENEATH."""
_SERVED = b"served" * 50_000


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


@pytest.fixture
def name(registry: Registry) -> str:
    built = images.image(images.layer(images.file("f", _SERVED), images.file("g", b"g\n")))
    return str(registry.push("replacing/one", "1", built))


def _mount(store: Path, mountpoint: Path, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    log = mountpoint.with_name("log")
    return daemon.layerfs("mount", "--store", store, "--log-file", log, *more, mountpoint, check=check)


def _pid(mountpoint: Path) -> int:
    return int(json.loads((mountpoint / ".layerfs/status.json").read_bytes())["pid"])


class _Reader(threading.Thread):
    """Opens and reads a file over and over; its path is walked anew each time."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.end = threading.Event()
        self.read = 0
        self.errors: list[str] = []

    def has_read(self, times: int) -> bool:
        return self.read >= times

    def run(self) -> None:
        while not self.end.is_set():
            try:
                if self._path.read_bytes() != _SERVED:
                    self.errors.append("other bytes")
            except OSError as error:
                self.errors.append(str(error))
            self.read += 1


@pytest.mark.skipif(_kernel() < _BENEATH, reason="this kernel puts no mount beneath another")
@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.long)])
def test_who_reads_in_a_loop_sees_no_error_while_mounts_are_replaced(
    store: Path, mountpoint: Path, name: str, times: int
) -> None:
    try:
        _mount(store, mountpoint)
        reader = _Reader(mountpoint / "images" / name / "rootfs/f")
        assert reader._path.read_bytes() == _SERVED
        reader.start()
        with (mountpoint / "images" / name / "rootfs/f").open("rb", buffering=0) as held:
            first = _pid(mountpoint)
            pids = [first]
            for _ in range(times):
                _mount(store, mountpoint, "--replace")
                pids.append(_pid(mountpoint))
                wanted = reader.read + 1
                clients.wait_until(partial(reader.has_read, wanted))
            reader.end.set()
            reader.join()

            assert held.read() == _SERVED
            assert clients.runs(first)
        assert reader.errors == []
        assert len(set(pids)) == times + 1
        clients.wait_until(lambda: not any(map(clients.runs, pids[:-1])))
        assert len([one for one in mounts.mounts() if one.mountpoint == os.fsencode(mountpoint)]) == 1
        daemon.layerfs("umount", mountpoint)
        clients.wait_until(lambda: not clients.runs(pids[-1]))
        assert mounts.mount_at(mountpoint) is None
    finally:
        mounts.clear(mountpoint)


@pytest.mark.skipif(_kernel() < _BENEATH, reason="this kernel puts no mount beneath another")
def test_a_replaced_daemon_that_is_told_to_end_leaves_its_successor_alone(
    store: Path, mountpoint: Path, name: str
) -> None:
    try:
        _mount(store, mountpoint)
        old = _pid(mountpoint)
        with (mountpoint / "images" / name / "rootfs/f").open("rb"):
            _mount(store, mountpoint, "--replace")
            os.kill(old, signal.SIGTERM)
            clients.wait_until(lambda: not clients.runs(old))

        assert (mountpoint / "images" / name / "rootfs/g").read_bytes() == b"g\n"
        assert _pid(mountpoint) != old
    finally:
        mounts.clear(mountpoint)


def test_replacing_nothing_is_an_ordinary_mount(store: Path, mountpoint: Path) -> None:
    try:
        _mount(store, mountpoint, "--replace")
        assert daemon.answers(mountpoint)
        assert not [one for one in mounts.mounts() if b"layerfs-replacing" in one.mountpoint]
    finally:
        mounts.clear(mountpoint)
