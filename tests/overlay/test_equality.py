"""One tree, whoever merges it: umoci, overlayfs on native and on FUSE lowers, and ``rootfs/``."""

import json
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from layerfs.oci import Digest
from tests.overlay.scene import BUSYBOX, ROOT, Scene, native, numbered, snapshot
from tests.support import canary, clients, images, mounts
from tests.support.images import BuiltLayer, Entry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)

KINDS: Sequence[Entry] = (
    images.directory(".", mode=0o751, uid=1, gid=2, mtime=7),
    images.directory("d", mode=0o2770, uid=1000, gid=1000, mtime=1.5),
    images.file("d/file", b"x" * 70_000, mode=0o640, uid=12, gid=34, mtime=1_600_000_000.25),
    images.file("empty", mode=0),
    images.file("suid", b"s", mode=0o6755),
    images.file("capable", b"c", mode=0o755, xattrs={"security.capability": CAPABILITY}),
    images.file("noted", b"n", xattrs={"user.note": b"\0\xff", "trusted.other": b"t"}),
    images.hardlink("same", "d/file"),
    images.hardlink("d/again", "d/file"),
    images.symlink("link", "d/file", uid=5, gid=6, mtime=3),
    images.symlink("dangling", "../nowhere"),
    images.fifo("pipe", mode=0o620),
    images.chardev("null", 1, 3, mode=0o666),
    images.directory("tmp", mode=0o1777),
    images.file("old", mtime=-1.5),
    images.file(b"\xff\xfe raw \\x\n:,", b"name"),
)

STACKS: dict[str, list[Sequence[Entry]]] = {
    "one layer of all kinds": [KINDS],
    "a busybox": [BUSYBOX, (ROOT, images.file("etc/hostname", b"box\n"))],
    "whiteouts of all kinds": [
        KINDS,
        (
            ROOT,
            *map(images.whiteout, ("same", "link", "pipe", "null", "d", "tmp", "noted")),
            images.whiteout("never was"),
        ),
    ],
    "opaque directories": [
        (ROOT, images.directory("d"), images.directory("d/sub"), images.file("d/sub/x"), images.file("d/y")),
        (ROOT, images.directory("d", mode=0o700), images.opaque("d"), images.file("d/z", b"z")),
        (ROOT, images.directory("d"), images.file("d/sub", b"a file now"), images.whiteout("d/y")),
    ],
    "an opaque root": [
        KINDS,
        (images.directory(".", mtime=9), images.opaque("."), images.directory("d"), images.file("d/new")),
    ],
    "every type becomes every other": [
        (
            ROOT,
            images.directory("a"), images.file("a/x"), images.file("b"), images.symlink("c", "b"),
            images.fifo("e"), images.directory("f"), images.file("f/x"),
        ),
        (
            ROOT,
            images.file("a", b"was a directory"), images.directory("b"), images.file("b/x"),
            images.directory("c"), images.file("c/x"), images.symlink("e", "a"), images.symlink("f", "b"),
        ),
        (ROOT, images.directory("a"), images.file("a/y"), images.directory("f"), images.file("f/y")),
    ],
    "a directory removed and made again": [
        (ROOT, images.directory("d", mode=0o700), images.directory("d/s"), images.file("d/s/x")),
        (ROOT, images.whiteout("d")),
        (ROOT, images.directory("d"), images.file("d/y")),
    ],
    "parents without entries": [
        (ROOT, images.directory("tmp", mode=0o1777, uid=3), images.directory("tmp/in", mode=0o711, gid=4)),
        (ROOT, images.file("tmp/in/file")),
        (ROOT, images.file("tmp/other"), images.whiteout("tmp/in/file")),
    ],
    "links within and beside the layers": [
        (ROOT, images.file("one", b"1"), images.hardlink("two", "one"), images.hardlink("three", "one")),
        (ROOT, images.whiteout("one"), images.file("four", b"4"), images.hardlink("five", "four")),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An image to compare."""

    layers: Sequence[BuiltLayer]
    entries: int
    """How many entries the merged tree has at least."""


Compare = Callable[[Case, str], None]


@pytest.fixture
def compare(scene: Scene, plain_scene: Scene, tmp_path: Path) -> Compare:
    """Return what fails if one of the merged trees of a case differs."""
    return lambda case, name: _compare(case, scene, plain_scene, tmp_path, name.replace(" ", "-"))


def _compare(case: Case, scene: Scene, plain_scene: Scene, tmp_path: Path, name: str) -> None:
    place = scene.place(name, *case.layers)
    plain = replace(place, path=plain_scene.daemon.images / str(place.reference))
    assert not native(plain.lowerdirs()[1:], plain_scene.store) or not case.layers
    expected = unpacked_by_umoci(place.built, tmp_path)
    clients.run("ls", place.path / "rootfs/")
    found = {"rootfs": canary.snapshot((place.path / "rootfs").resolve())}
    for kind, lowers in (
        ("native", [Path(path) for path in place.lowerdirs()]),
        ("fuse", place.fuse_lowers()),
        ("fuse alone", [Path(path) for path in plain.lowerdirs()]),
    ):
        with mounts.overlay(lowers, tmp_path / kind, "ro", upper=len(lowers) < 2) as merged:
            found[kind] = snapshot(merged)

    assert len(expected) >= case.entries
    for kind in found:
        canary.assert_same(expected, comparable(found[kind]), ignore_overlay_xattrs=True)
    for kind in found if case.layers else ():  # directory times too
        canary.assert_same(found["rootfs"], found[kind], ignore_overlay_xattrs=True)


def unpacked_by_umoci(built: images.BuiltImage, base: Path) -> canary.Snapshot:
    layout = images.write_layout(base / "layout", built)
    rootfs = base / "unpacked"
    subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{layout}:latest", rootfs], check=True, capture_output=True
    )
    return comparable(canary.snapshot(rootfs))


def comparable(tree: canary.Snapshot) -> canary.Snapshot:
    """Leave out the times of directories, which umoci changes where a layer removes an entry."""
    return {path: replace(fact, mtime_ns=0) if fact.kind == "d" else fact for path, fact in tree.items()}


@pytest.mark.parametrize("name", STACKS)
def test_all_ways_to_merge_show_what_umoci_unpacks(name: str, compare: Compare) -> None:
    compare(Case([images.layer(*layer) for layer in STACKS[name]], 1), "kinds")


@pytest.mark.parametrize("count", [0, 1, 36])
def test_so_they_do_for_any_number_of_layers(count: int, compare: Compare) -> None:
    compare(Case(numbered(count), count), f"number-{count}")


def test_so_they_do_for_a_layer_that_is_there_several_times(compare: Compare) -> None:
    one, two = numbered(2)
    compare(Case([one, two, one, one, two, one], 1), "repeated")


# A whole distribution

_CACHED = Path("~/.cache/layerfs-bench/a-gzip-v1").expanduser()
"""Where scripts/bench keeps a Debian root as a layer."""

CHANGES: Sequence[Entry] = (
    ROOT,
    images.whiteout("usr/share/doc/apt"),
    images.opaque("usr/share/doc/bash"),
    images.file("usr/share/doc/bash/only", b"here\n"),
    images.directory("etc"),
    images.file("etc/hostname", b"compared\n"),
    images.file("etc/os-release", b"was a link\n"),
    images.whiteout("etc/passwd-"),
    images.directory("var/log", mode=0o700),
)


def debian(base: Path) -> BuiltLayer:
    """Return the layer of a Debian root, from the bench's cache or fresh from a mirror."""
    if _CACHED.exists():
        facts = json.loads((_CACHED / "input.json").read_text())
        digest, diff_id = Digest.parse(facts["digest"]), Digest.parse(facts["diff_id"])
        blob = (_CACHED / "layout/blobs/sha256" / digest.hex).read_bytes()
        return BuiltLayer(blob, digest, diff_id, "gzip", "debootstrap")
    root = base / "debian"
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(
        ["debootstrap", "--variant=minbase", "stable", root], check=True, capture_output=True, env=environment
    )
    packed = ["tar", "--sort=name", "--numeric-owner", "--xattrs", "-C", str(root), "-cf", "-", "."]
    archive = subprocess.run(packed, check=True, capture_output=True).stdout
    return images.layer(archive=archive, compression="zstd")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_so_they_do_for_a_debian_root(compare: Compare, tmp_path: Path) -> None:
    compare(Case([debian(tmp_path), images.layer(*CHANGES)], 6_500), "debian")
