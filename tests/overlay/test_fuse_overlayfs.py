"""fuse-overlayfs on the lower directories that ``layerfs lowerdir --for fuse-overlayfs`` prints."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.overlay.scene import ROOT, Scene, command
from tests.support import canary, images, mounts
from tests.support.images import Entry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

STACKS: dict[str, list[tuple[Entry, ...]]] = {
    "what a higher layer brings back": [
        (ROOT, images.file("etc/a", b"a"), images.file("opt/x", b"x")),
        (images.whiteout("etc/a"), images.opaque("opt"), images.file("opt/z", b"z")),
        (images.file("etc/a", b"back"),),
    ],
    "entries beside the marker that hides them": [
        (
            ROOT,
            images.directory("d", mode=0o700), images.file("d/old"), images.file("f", b"old"),
            images.directory("link"), images.file("pipe"), images.file("null"),
        ),
        (
            *map(images.whiteout, ("d", "f", "link", "pipe", "null")),
            images.directory("d", mode=0o2770, uid=5, mtime=3),
            images.file("d/new", b"new", mode=0o4755, uid=7),
            images.directory("d/sub"), images.whiteout("d/sub/again"), images.file("d/sub/again", b"again"),
            images.hardlink("d/same", "d/new"),
            images.file("f", b"new", xattrs={"user.note": b"kept"}, mtime=1.25),
            images.symlink("link", "f", uid=3), images.fifo("pipe", mode=0o620),
            images.chardev("null", 1, 3, mode=0o666),
        ),
        (images.file("d/above", b"above"), images.whiteout("d/sub/never")),
    ],
    "hidden again from above": [
        (ROOT, images.directory("d"), images.file("d/x", b"1"), images.file("y", b"1")),
        (images.whiteout("d"), images.directory("d"), images.file("d/x", b"2"), images.file("d/z"),
         images.whiteout("y"), images.file("y", b"2")),
        (images.whiteout("d/x"), images.file("d/z", b"3"), images.whiteout("y")),
    ],
    "an opaque root": [
        (ROOT, images.file("old"), images.directory("d"), images.file("d/old")),
        (images.directory(".", mtime=9), images.opaque("."), images.directory("d"), images.file("d/new")),
    ],
    "parents without entries": [
        (ROOT, images.directory("tmp", mode=0o1777, uid=3)),
        (images.file("tmp/file"),),
    ],
}  # fmt: skip


def merged_by_fuse(scene: Scene, reference: object, target: Path) -> canary.Snapshot:
    """Return the tree that fuse-overlayfs makes of what the command prints for it."""
    printed = scene.lowerdir("--for", "fuse-overlayfs", str(reference)).stdout
    with mounts.fuse_overlay(printed, target) as merged:
        return canary.snapshot(merged, one_filesystem=False)


@pytest.mark.parametrize("name", STACKS)
def test_fuse_overlayfs_shows_the_image(scene: Scene, tmp_path: Path, name: str) -> None:
    place = scene.place("fuse", *(images.layer(*entries) for entries in STACKS[name]))
    with mounts.overlay(place.lowerdir(), tmp_path / "kernel", "ro", upper=False) as merged:
        expected = canary.snapshot(merged, one_filesystem=False)

    found = merged_by_fuse(scene, place.reference, tmp_path / "fuse")

    assert len(found) > 2
    canary.assert_same(expected, found, ignore_overlay_xattrs=True)


def test_sparse_files_that_are_copied_for_it_stay_sparse(scene: Scene, tmp_path: Path) -> None:
    content = b"begin" + bytes(1 << 20) + b"end"
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(len(content))}
    stored = b"2\n0\n5\n%d\n3\n" % (len(content) - 3)
    stored = stored.ljust(512, b"\0") + b"begin" + b"end"
    hole = images.file("GNUSparseFile.0/s", stored, pax=sparse | {"GNU.sparse.name": "s"})
    place = scene.place("fuse", images.layer(ROOT), images.layer(images.whiteout("s"), hole))

    cover, *_ = scene.lowerdir(
        "--for", "fuse-overlayfs", "--format", "lines", str(place.reference)
    ).stdout.split()

    assert Path(cover, "s").read_bytes() == content
    assert os.stat(Path(cover, "s")).st_blocks * 512 < len(content) // 2


def test_each_form_has_a_cover_of_its_own(scene: Scene) -> None:
    place = scene.place("fuse", images.layer(ROOT, images.file("x")), images.layer(images.whiteout("x")))
    kernel, *trees = scene.lowerdir("--format", "lines", str(place.reference)).stdout.split()
    fuse, *same = scene.lowerdir(
        "--for", "fuse-overlayfs", "--format", "lines", str(place.reference)
    ).stdout.split()
    assert trees == same
    assert (os.listdir(kernel), os.listdir(fuse)) == ([".wh.x"], [])
    assert (
        scene.lowerdir("--for", "fuse-overlayfs", "--no-fetch", str(place.reference)).stdout.count(fuse) == 1
    )


def test_a_path_that_fuse_overlayfs_cannot_be_told_is_refused(tmp_path: Path) -> None:
    source = images.write_layout(tmp_path / "lay", images.image(images.layer(ROOT)))
    store = tmp_path / "co:lon"
    command("import", "--store", store, f"oci:{source}", "x:1")
    refused = command("lowerdir", "--store", store, "--for", "fuse-overlayfs", "x:1", check=False)
    assert refused.returncode == 2
    assert "fuse-overlayfs takes no path with ':'" in refused.stderr


def test_commas_and_backslashes_are_escaped_for_it(tmp_path: Path) -> None:
    source = images.write_layout(tmp_path / "lay", images.image(images.layer(ROOT, images.file("x", b"hi"))))
    store = tmp_path / "a,b\\c d"
    command("import", "--store", store, f"oci:{source}", "x:1")
    printed = command("lowerdir", "--store", store, "--for", "fuse-overlayfs", "x:1").stdout
    with mounts.fuse_overlay(printed, tmp_path / "merged") as merged:
        assert subprocess.run(["cat", merged / "x"], capture_output=True, check=True).stdout == b"hi"
