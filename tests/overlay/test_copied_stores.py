"""Stores that tools have copied: whatever a copy lacks is noticed before it is used, and made anew."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.overlay.scene import ROOT, command, snapshot
from tests.rootless.conftest import household as household
from tests.rootless.household import STRANGER, UID, Household
from tests.rootless.scenes import look, privileged_image
from tests.support import canary, clients, daemon, images, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse, pytest.mark.allow_warnings]

BUILT = images.image(
    images.layer(
        ROOT,
        images.directory("srv/www", mode=0o2770, gid=33), images.file("srv/www/old.html", b"old"),
        images.file("gone", b"gone"), images.file("owned", b"owned", mode=0o640, uid=1000, gid=50),
        images.hardlink("linked", "owned"), images.file("setuid", b"#!", mode=0o4755),
        images.file("capable", b"x", xattrs={"user.note": b"kept"}), images.directory("dir"),
        images.file("dir/below", b"below"), images.symlink("link", "owned", uid=7),
    ),
    images.layer(
        images.opaque("srv/www"), images.file("srv/www/new.html", b"new"), images.whiteout("gone"),
        images.directory("dir"), images.whiteout("dir"), images.directory("tmp", mode=0o1777),
    ),
)  # fmt: skip

_SHELL = {
    "tar": 'mkdir "$2" && tar -C "$1" -cf - . | tar -C "$2" -xf -',
    "tar --xattrs": 'mkdir "$2" && tar -C "$1" --xattrs --xattrs-include=\\* -cSf - . | '
    'tar -C "$2" --xattrs --xattrs-include=\\* -xpf -',
    "cp -r": 'cp -r "$1" "$2"',
    "cp -a": 'cp -a "$1" "$2"',
    "rsync -a": 'rsync -a "$1/" "$2"',
    "rsync -aHAXS": 'rsync -aHAXS "$1/" "$2"',
}
ALL = pytest.mark.parametrize("how", _SHELL)


def copy(how: str, source: Path, target: Path) -> Path:
    """Copy a store as a user would who types what *how* names."""
    subprocess.run(["sh", "-euc", _SHELL[how], "sh", source, target], check=True)
    return target


@dataclass(frozen=True)
class Original:
    """A complete store, and what is right of it."""

    store: Path
    reference: str
    merged: canary.Snapshot
    tar: bytes
    tree: str


@pytest.fixture(scope="module")
def original(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Original:
    """A store with one image, and its registry's answers."""
    base = tmp_path_factory.mktemp("copied")
    store, target = base / "store", base / "target"
    target.mkdir()
    reference = str(_session_registry.push("overlay/copied", "latest", BUILT))
    command("overlay", "--store", store, reference, target)
    merged = snapshot(target)
    command("overlay", "--store", store, "--umount", target)
    command("lowerdir", "--for", "fuse-overlayfs", "--store", store, reference)
    return Original(store, reference, merged, _export(store, reference, base), _tree(store, reference))


def _export(store: Path, reference: str, base: Path) -> bytes:
    command("export", "--offline", "--store", store, reference, "-o", base / "exported.tar")
    return (base / "exported.tar").read_bytes()


def _tree(store: Path, reference: str) -> str:
    return command("tree", "--json", "--offline", "--store", store, reference).stdout


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where an overlay goes."""
    path = tmp_path / "target"
    path.mkdir()
    yield path
    mounts.clear(path)


@ALL
def test_a_store_that_lost_its_attributes_is_noticed(
    original: Original, tmp_path: Path, target: Path, how: str
) -> None:
    store = copy(how, original.store, tmp_path / "copy")

    command("overlay", "--offline", "--store", store, original.reference, target)

    canary.assert_same(original.merged, snapshot(target))
    assert not (target / "srv/www/old.html").exists()


def _by_lowerdir(store: Path, original: Original, base: Path) -> None:
    option = command("lowerdir", "--offline", "--store", store, original.reference).stdout
    with mounts.overlay(option, base / "by-hand", upper=False) as merged:
        canary.assert_same(original.merged, snapshot(merged))


def _by_fuse_lowerdir(store: Path, original: Original, base: Path) -> None:
    option = command(
        *("lowerdir", "--for", "fuse-overlayfs", "--offline", "--store", store, original.reference)
    ).stdout
    with mounts.fuse_overlay(option, base / "by-fuse") as merged:
        assert not (merged / "srv/www/old.html").exists()
        assert (merged / "owned").stat().st_uid == 1000
        assert (merged / "owned").stat().st_nlink == 2


def _by_export(store: Path, original: Original, base: Path) -> None:
    assert _export(store, original.reference, base) == original.tar


def _by_tree(store: Path, original: Original, _: Path) -> None:
    assert _tree(store, original.reference) == original.tree


def _by_mount(store: Path, original: Original, base: Path) -> None:
    with daemon.running(store, base / "mnt", "--offline") as running:
        place = running.images / original.reference
        os.listdir(place / "rootfs/")
        canary.assert_same(original.merged, snapshot((place / "rootfs").resolve()))
        with mounts.overlay(clients.read(place / "lowerdir").decode(), base / "o", upper=False) as merged:
            canary.assert_same(original.merged, snapshot(merged))


def _by_library(store: Path, original: Original, base: Path) -> None:
    digests = [layer.digest for layer in BUILT.layers]
    with ImageStorage(store) as storage:
        assert [storage.open_layer(digest) for digest in digests] == [None, None]
        assert storage.cover(digests) is None
        trees = [storage.extract_layer(digest, storage.layer_tarball_path(digest)).path for digest in digests]
        with mounts.overlay([storage.publish_cover(digests), *reversed(trees)], base / "o", upper=False) as o:
            canary.assert_same(original.merged, snapshot(o))


@pytest.mark.parametrize(
    "use", [_by_lowerdir, _by_fuse_lowerdir, _by_export, _by_tree, _by_mount, _by_library]
)
@pytest.mark.parametrize("how", ["cp -r", "rsync -a"])
def test_whoever_uses_a_copy_first_sees_the_image(
    original: Original, tmp_path: Path, use: Callable[[Path, Original, Path], None], how: str
) -> None:
    use(copy(how, original.store, tmp_path / "copy"), original, tmp_path)


def _replaced(store: Path, original: Original) -> None:
    """Restore a store from a cache that has kept no attributes, below whoever uses it."""
    for name in ("extracted", "covers"):
        shutil.rmtree(store / name)
        shutil.copytree(original.store / name, store / name, symlinks=True, ignore=_devices)


def _devices(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if _is_device(Path(directory, name))]


def _is_device(path: Path) -> bool:
    return path.is_char_device()


def test_a_store_replaced_below_a_daemon_is_noticed(
    original: Original, tmp_path: Path, mountpoint: Path
) -> None:
    store = tmp_path / "store"
    command("pull", "--store", store, original.reference)
    with daemon.running(store, mountpoint) as running:
        place = running.images / original.reference
        option = clients.read(place / "lowerdir").decode()
        with mounts.overlay(option, tmp_path / "before", upper=False) as merged:
            canary.assert_same(original.merged, snapshot(merged))

        _replaced(store, original)

        with mounts.overlay(option, tmp_path / "after", upper=False) as merged:
            canary.assert_same(original.merged, snapshot(merged))
        os.listdir(place / "rootfs/")
        canary.assert_same(original.merged, snapshot((place / "rootfs").resolve()))


def test_without_blob_and_network_a_copy_is_an_error(
    original: Original, tmp_path: Path, target: Path
) -> None:
    store = copy("cp -r", original.store, tmp_path / "copy")
    shutil.rmtree(store / "layers")
    top = BUILT.layers[1].digest

    done = command("overlay", "--offline", "--store", store, original.reference, target, check=False)

    assert done.returncode != 0
    assert str(top) in done.stderr or str(BUILT.layers[0].digest) in done.stderr
    assert "the directory in the store is a copy" in done.stderr
    assert mounts.mount_at(target) is None


def test_an_attribute_that_got_lost_in_place_is_noticed(
    original: Original, tmp_path: Path, target: Path
) -> None:
    store = tmp_path / "store"
    command("pull", "--store", store, original.reference)
    top = store / "extracted" / BUILT.layers[1].digest.name
    os.removexattr(top / "srv/www", "trusted.overlay.opaque")

    command("overlay", "--offline", "--store", store, original.reference, target)

    canary.assert_same(original.merged, snapshot(target))


def test_a_complete_store_is_not_made_anew(original: Original, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    command("pull", "--store", tmp_path / "store", original.reference)
    before = _trees(tmp_path / "store")
    (tmp_path / "store").rename(moved)

    _export(moved, original.reference, tmp_path)
    command("lowerdir", "--offline", "--store", moved, original.reference)

    assert _trees(moved) == before


def _trees(store: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_ino for kind in ("extracted", "covers") for path in (store / kind).iterdir()
    }


def test_a_copy_by_another_user_is_theirs(registry: Registry, household: Household) -> None:
    reference = str(registry.push("overlay/copied-by-others", "latest", privileged_image()))
    household.home.chmod(0o711)
    source = household.place("store")
    try:
        household.room().layerfs("pull", "--share-store", "--store", source, reference)
        with household.room().mounted("--store", str(source)) as mounted, mounted.inside() as inside:
            expected = inside.call(look, mounted.images / reference / "rootfs")
        place, point = household.place("theirs", STRANGER), household.place("m", STRANGER)
        stranger = household.room(STRANGER)
        subprocess.run(["cp", "-a", source, place / "s"], check=True)
        subprocess.run(["chown", "-R", f"{STRANGER}:{STRANGER}", place / "s"], check=True)

        with (
            stranger.mounted("--offline", "--store", str(place / "s"), mountpoint=point) as mounted,
            mounted.inside() as inside,
        ):
            found = inside.call(look, mounted.images / reference / "rootfs")
    finally:
        household.home.chmod(0o700)

    canary.assert_same(expected, found)


def test_a_copy_of_roots_store_is_the_users(original: Original, household: Household) -> None:
    place = household.place("from-root")
    with subprocess.Popen(["tar", "-C", original.store, "-cf", "-", "."], stdout=subprocess.PIPE) as packed:
        assert packed.stdout is not None
        (place / "s").mkdir()
        os.chown(place / "s", UID, UID)
        # What a user's tar may not make, devices and owners, it leaves out and says so.
        subprocess.run(
            [*household.room().prefix, "tar", "-C", place / "s", "-xf", "-"],
            stdin=packed.stdout,
            stderr=subprocess.DEVNULL,
        )

    room = household.room()
    room.layerfs("export", "--offline", "--store", place / "s", original.reference, "-o", place / "exported")

    assert (place / "exported").read_bytes() == original.tar
    assert Digest.of((place / "exported").read_bytes()) == Digest.of(original.tar)
