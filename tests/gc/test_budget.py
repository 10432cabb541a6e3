"""A daemon on a disk that is small: it keeps its limits, and makes room once for what is wanted."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerfs.catalog.inventory import take_inventory
from layerfs.gc.keeper import Keeper
from layerfs.gc.limits import Limits
from layerfs.oci import stack_digest
from layerfs.settings.kinds import Amount
from layerfs.store import ImageStorage
from tests.store.helpers import publish
from tests.support import clients, daemon
from tests.support.images import BuiltImage, directory, file, image, layer, symlink, whiteout
from tests.support.mounts import overlay, tmpfs
from tests.support.registry import Registry

pytestmark = [pytest.mark.allow_warnings, pytest.mark.needs_root, pytest.mark.needs_fuse]

MEGABYTE = 1 << 20


def built(number: int, size: int) -> BuiltImage:
    """Return an image of two layers, whose bytes no compression makes less."""
    return image(
        layer(file("data", bytes([number]) + os.urandom(size)), compression="none"),
        layer(file("number", b"%d" % number), compression="none"),
    )


def du(path: Path) -> int:
    """Return what du(1) says."""
    found = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Sixteen megabytes."""
    with tmpfs(tmp_path / "disk", "size=16m", "mode=755") as path:
        yield path


def test_more_images_than_fit_are_readable_in_turn_and_a_mounted_one_stays(
    disk: Path, mountpoint: Path, tmp_path: Path, registry: Registry
) -> None:
    made = [built(number, MEGABYTE) for number in range(8)]  # each takes two: blob and tree
    names = [str(registry.push("budget/turn", str(number), each)) for number, each in enumerate(made)]
    limit = 8 * MEGABYTE
    with daemon.running(disk / "store", mountpoint, "--max-size", str(limit)) as running:
        store = running.store

        def is_within() -> bool:
            return du(store) <= limit

        roots = [running.images / name / "rootfs" for name in names]
        assert clients.read(roots[0] / "number") == b"0"
        assert len(clients.read(roots[0] / "data")) == MEGABYTE + 1
        stack = stack_digest([each.digest for each in made[0].layers])
        layers = [store / "extracted" / each.digest.name for each in made[0].layers]
        lower = clients.run("readlink", mountpoint / "lower" / stack.short_id).stdout.decode().strip()
        option = "lowerdir=" + ":".join([lower, *map(str, reversed(layers))])
        with overlay(option, tmp_path / "overlay", upper=False) as merged:
            for turn in range(2):
                for number, root in enumerate(roots):
                    data = clients.read(root / "data")
                    assert (data[0], len(data)) == (number, MEGABYTE + 1), (turn, number)
                assert (merged / "data").read_bytes()[0] == 0
            clients.wait_until(is_within)
            with ImageStorage(store) as storage:
                assert take_inventory(storage).total == du(store)
                present = [all(storage.has_tree(one.digest) for one in each.layers) for each in made]
            assert present[0]
            assert not all(present)


def test_what_is_evicted_while_the_kernel_knows_it_is_neither_absent_nor_what_lies_below(
    store: Path, mountpoint: Path, registry: Registry
) -> None:
    base = layer(directory("dir"), file("dir/x", b"old"), file("dir/gone"), symlink("dir/to", "x"))
    top = layer(file("dir/x", b"new"), file("dir/z", b"z"), whiteout("dir/gone"), symlink("dir/last", "z"))
    name = str(registry.push("budget/known", "1", image(base, top)))
    everything = {"x", "z", "to", "last"}
    with daemon.running(store, mountpoint) as running, ImageStorage(store) as storage:
        merged, diff = running.images / name / "rootfs/dir", running.images / name / "layers/01/diff/dir"
        evict = Keeper(storage, Limits(max_size=Amount(1))).keep

        def nothing_is_here() -> bool:
            evict()
            return os.listdir(store / "extracted") == []

        looks: list[Callable[[], bool]] = [
            lambda: clients.read(merged / "x") == b"new",
            lambda: clients.read(diff / "z") == b"z",
            lambda: clients.names(merged) == everything,
            lambda: clients.run("readlink", merged / "last").stdout == b"z\n",
            lambda: clients.run("stat", merged / "gone").returncode == 1,
            lambda: clients.read(merged / "z") == b"z",
            lambda: clients.names(merged) == everything,
            lambda: clients.names(diff) == {"x", "z", "last", ".wh.gone"},
            lambda: clients.read(diff / "x") == b"new",
        ]
        for look in looks:
            clients.run("ls", merged.parent, diff.parent)  # now the kernel knows the two directories
            clients.wait_until(nothing_is_here)
            assert look()


def fetched_on_a_full_disk(disk: Path, mountpoint: Path, name: str) -> tuple[bytes, str]:
    """Read an image of three megabytes through a new mount; return its bytes and the log."""
    with daemon.running(disk / "store", mountpoint) as running:
        done = clients.run("cat", running.images / name / "rootfs/data")
        return done.stdout, running.log() + done.stderr.decode()


def test_a_full_disk_is_cleared_of_garbage_once_for_who_waits(
    disk: Path, mountpoint: Path, registry: Registry
) -> None:
    name = str(registry.push("budget/full", "1", built(1, 3 * MEGABYTE)))
    with ImageStorage(disk / "store") as storage:
        for number in range(3):  # four megabytes each: nothing else fits
            publish(storage, b"%d" % number + os.urandom(2 * MEGABYTE))
    assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < 5 * MEGABYTE
    data, log = fetched_on_a_full_disk(disk, mountpoint, name)
    assert (data[:1], len(data)) == (b"\x01", 3 * MEGABYTE + 1), log


def test_a_full_disk_with_nothing_to_free_is_said(disk: Path, mountpoint: Path, registry: Registry) -> None:
    name = str(registry.push("budget/stuck", "1", built(1, 3 * MEGABYTE)))
    (disk / "somebody's").write_bytes(bytes(11 * MEGABYTE))
    data, log = fetched_on_a_full_disk(disk, mountpoint, name)
    assert len(data) < 3 * MEGABYTE
    assert "No space left on device" in log
