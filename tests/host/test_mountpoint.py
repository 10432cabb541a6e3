"""A mountpoint stays the directory that it was at the first look, whatever becomes of the path to it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerfs.errors import MountError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import Overlay, by_descriptors, by_option_string
from tests.support import mounts

pytestmark = pytest.mark.needs_root


@dataclass(frozen=True)
class Attack:
    """A directory of a neighbour's with one in it, and a directory that he would like to be mounted over."""

    parent: Path
    victim: Path

    @property
    def named(self) -> Path:
        """What root names."""
        return self.parent / "mnt"

    @property
    def moved(self) -> Path:
        """Where it is after `swap`."""
        return self.parent.with_name("aside") / "mnt"

    def swap(self) -> None:
        """Put a link in the place of the parent: the same path leads to the victim."""
        self.parent.rename(self.parent.with_name("aside"))
        self.parent.symlink_to(self.victim.parent)


@pytest.fixture
def attack(tmp_path: Path) -> Iterator[Attack]:
    made = Attack(tmp_path / "theirs", tmp_path / "victim/mnt")
    made.named.mkdir(parents=True)
    made.victim.mkdir(parents=True)
    (made.victim / "precious").touch()
    try:
        yield made
    finally:
        mounts.clear(tmp_path)


@pytest.mark.parametrize("way", [by_descriptors, by_option_string])
def test_mountpoint_swapped_before_an_overlay_is_mounted(
    attack: Attack, tmp_path: Path, way: Callable[[Overlay, Mountpoint], None]
) -> None:
    lowers = [tmp_path / "a", tmp_path / "b"]
    for lower in lowers:
        lower.mkdir()
        (lower / lower.name).touch()
    with Mountpoint.open(attack.named) as opened:
        attack.swap()

        way(Overlay([os.fsencode(lower) for lower in lowers]), opened)

        assert os.listdir(attack.victim) == ["precious"]
        assert sorted(os.listdir(attack.moved)) == ["a", "b"]
        found = opened.mount()
        assert found is not None
        assert found.fstype == b"overlay"
        opened.unmount()
    assert os.listdir(attack.moved) == []


def test_mountpoint_swapped_before_it_is_unmounted(attack: Attack) -> None:
    for path in (attack.named, attack.victim):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    with Mountpoint.open(attack.named) as opened:
        attack.swap()

        opened.unmount()

    assert mounts.mount_at(attack.victim) is not None
    assert mounts.mount_at(attack.moved) is None


def test_mountpoint_swapped_for_a_link_itself(attack: Attack) -> None:
    """The last part of a path is looked up by name to unmount it: a link there is not followed."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", attack.victim], check=True)
    with Mountpoint.open(attack.named) as opened:
        attack.named.rmdir()
        attack.named.symlink_to(attack.victim)

        assert opened.mount() is None
        with pytest.raises(MountError):
            opened.unmount(lazy=True)
    assert mounts.mount_at(attack.victim) is not None


def test_a_link_that_is_there_at_the_first_look_is_followed(attack: Attack) -> None:
    link = attack.parent / "link"
    link.symlink_to(attack.victim)
    with Mountpoint.open(link) as opened:
        assert opened.path == os.fsencode(attack.victim)
        assert str(opened) == str(attack.victim)


@pytest.mark.parametrize("name", ["missing", "file", "file/below"])
def test_what_is_no_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountError, match=r"not a directory .expected an existing one; mkdir it first"):
        Mountpoint.open(tmp_path / name)


def test_the_root_directory_is_one_too_and_nothing_is_leaked() -> None:
    before = os.listdir("/proc/self/fd")
    with Mountpoint.open("/") as opened:
        assert opened.path == b"/"
        assert opened.mount() is None
    with pytest.raises(MountError):
        Mountpoint.open("/missing")
    assert os.listdir("/proc/self/fd") == before
