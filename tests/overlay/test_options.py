"""Overlays with the options that runtimes and admins add: each shows the image, and takes changes."""

import os
from pathlib import Path

import pytest

from tests.overlay.scene import ROOT, Place, Scene, snapshot
from tests.support import canary, images, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

# As Documentation/filesystems/overlayfs.rst names them.
OPTIONS = {
    "none": [],
    "index": ["index=on"],
    "no index": ["index=off"],
    "metacopy": ["metacopy=on", "redirect_dir=on"],
    "no metacopy": ["metacopy=off"],
    "redirect_dir": ["redirect_dir=on"],
    "redirect_dir is followed": ["redirect_dir=follow"],
    "redirect_dir is not followed": ["redirect_dir=nofollow"],
    "no redirect_dir": ["redirect_dir=off"],
    "nfs_export": ["index=on", "nfs_export=on"],
    "xino": ["xino=on"],
    "no xino": ["xino=off"],
    "xino by itself": ["xino=auto"],
    "volatile": ["volatile"],
    "uuid": ["uuid=off"],
    "of the mount": ["noatime", "nodev", "nosuid"],
}


@pytest.fixture(scope="module")
def place(scene: Scene) -> Place:
    base = images.layer(
        ROOT,
        images.directory("d", mode=0o2750, gid=5),
        images.file("d/gone", b"gone"),
        images.file("d/kept", b"kept" * 3000, mode=0o4755, uid=7, xattrs={"user.note": b"n"}),
        images.hardlink("again", "d/kept"),
        images.directory("emptied"),
        images.file("emptied/old"),
        images.symlink("link", "d/kept"),
    )
    top = images.layer(
        images.whiteout("d/gone"), images.opaque("emptied"), images.file("emptied/new", b"new")
    )
    return scene.place("options", base, top)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_overlay_with_these_options_shows_the_image_and_can_be_written(
    place: Place, tmp_path: Path, name: str
) -> None:
    with mounts.overlay(place.lowerdir(), tmp_path / "plain", "ro", upper=False) as merged:
        expected = snapshot(merged)

    with mounts.overlay(place.lowerdir(), tmp_path / "own", *OPTIONS[name]) as merged:
        found = snapshot(merged)
        change(merged)

    assert expected.keys() >= {b"emptied/new", b"again", b"link", b"d/kept"}
    del expected[b""], found[b""]  # an upper directory has attributes of its own
    canary.assert_same(expected, found, ignore_overlay_xattrs=True)


def change(merged: Path) -> None:
    """Change what needs a copy, a whiteout and an opaque directory, and look at it."""
    os.chmod(merged / "again", 0o600)
    assert (merged / "again").read_bytes() == b"kept" * 3000
    with (merged / "d/kept").open("ab") as file:
        file.write(b"more")
    assert (merged / "d/kept").stat().st_size == 12_004
    (merged / "emptied/new").unlink()
    (merged / "emptied").rmdir()
    (merged / "emptied").mkdir()
    assert list((merged / "emptied").iterdir()) == []
    (merged / "d/gone").write_bytes(b"back")
    assert sorted(os.listdir(merged / "d")) == ["gone", "kept"]
