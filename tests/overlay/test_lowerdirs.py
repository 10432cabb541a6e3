"""``lowerdir`` of the tree: one text, known before anything is fetched, that mounts any image."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.overlay.scene import BUSYBOX, ROOT, Place, Scene, as_namespace_root, native, numbered, snapshot
from tests.support import canary, clients, daemon, images, mounts
from tests.support.images import BuiltLayer
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

EMPTY = images.layer()
ONE, TWO, THREE = numbered(3)


@contextlib.contextmanager
def relative(place: Place, base: Path) -> Iterator[Path]:
    """Mount by paths relative to ``lower/``: 127 absolute ones do not fit in mount(2)'s page."""
    target = base / "merged"
    target.mkdir()
    names = ":".join(Path(path).name for path in place.lowerdirs())
    directory = Path(place.lowerdirs()[0]).parent
    command = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={names}", str(target)]
    subprocess.run(command, cwd=directory, check=True)
    try:
        yield target
    finally:
        mounts.clear(target)


def test_the_text_is_the_same_before_and_after_and_asks_for_nothing(scene: Scene, tmp_path: Path) -> None:
    place = scene.place("text", *numbered(3))
    clients.read(place.path / "manifest.json")
    since = scene.registry.mark()

    before = place.lowerdir(), place.lowerdirs()

    assert scene.registry.blob_requests(since) in ([], [place.built.config_digest])
    with mounts.overlay(before[0], tmp_path, upper=False):
        assert (place.lowerdir(), place.lowerdirs()) == before
    text, lines = before
    assert text == "lowerdir=" + ":".join(lines)
    assert len(lines) == 4
    assert all(line.startswith(f"{scene.daemon.mountpoint}/lower/") for line in lines)
    assert max(map(len, lines)) == len(f"{scene.daemon.mountpoint}/lower/") + 26
    assert native(lines, scene.store)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_an_image_of_any_number_of_layers_is_mounted_by_its_text(
    scene: Scene, tmp_path: Path, count: int
) -> None:
    place = scene.place(f"count-{count}", *numbered(count))

    with mounts.overlay(place.lowerdir(), tmp_path, upper=False) as merged:
        assert (merged / "top").read_bytes() == b"%d" % (count - 1)
        expected = {"top"} | {f"file-{number}" for number in range(int(count > 1), count)}
        assert set(os.listdir(merged)) == expected
        assert merged.stat().st_mtime == count - 1


def test_127_layers_are_mounted_by_names_relative_to_lower(scene: Scene, tmp_path: Path) -> None:
    place = scene.place("count-127", *numbered(127))

    with relative(place, tmp_path) as merged:
        assert (merged / "top").read_bytes() == b"126"
        assert len(os.listdir(merged)) == 127
        assert scene.storage.usage().uses(place.built.layers[5].digest)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        pytest.param([], set(), id="none"),
        pytest.param([EMPTY], set(), id="an empty one"),
        pytest.param([EMPTY, EMPTY, EMPTY], set(), id="empty ones"),
        pytest.param([ONE, TWO, ONE], {"file-0", "file-1", "top"}, id="the same above and below"),
        pytest.param([THREE, ONE, THREE, THREE], {"file-2", "top"}, id="the same three times"),
    ],
)
def test_unusual_stacks_are_mounted_with_an_upper_directory(
    scene: Scene, tmp_path: Path, layers: Sequence[BuiltLayer], expected: set[str]
) -> None:
    place = scene.place("unusual", *layers)

    with mounts.overlay(place.lowerdir(), tmp_path) as merged:
        assert set(os.listdir(merged)) == expected
        (merged / "new").write_text("new")
        if layers:
            root = place.path / "rootfs"
            assert clients.names(root) == expected


def test_fuse_and_native_lowers_can_be_mixed(scene: Scene, tmp_path: Path) -> None:
    base = images.layer(
        ROOT, images.directory("d"), images.file("d/x"), images.file("gone"), images.file("kept", b"kept")
    )
    middle = images.layer(ROOT, images.directory("d"), images.opaque("d"), images.file("d/y"))
    top = images.layer(ROOT, images.whiteout("gone"), images.file("implied/z"))
    place = scene.place("mixed", base, middle, top)
    lowers = [Path(path) for path in place.lowerdirs()]
    fuse = place.fuse_lowers()
    assert not native(list(map(str, fuse[1:])), scene.store)

    found = {}
    for name, chosen in {
        "native": lowers,
        "fuse": fuse,
        "fuse below": [*lowers[:2], *fuse[2:]],
        "fuse above": [*fuse[:2], *lowers[2:]],
        "fuse between": [lowers[0], lowers[1], fuse[2], lowers[3]],
    }.items():
        with mounts.overlay(chosen, tmp_path / name, upper=False) as merged:
            found[name] = snapshot(merged)

    assert set(found["native"]) == {b"", b"d", b"d/y", b"kept", b"implied", b"implied/z"}
    for name in found:
        canary.assert_same(found["native"], found[name], ignore_overlay_xattrs=True)


def test_one_mount_fetches_the_whole_stack_in_parallel(
    own_registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    layers = numbered(6)
    reference = own_registry.push("parallel", "latest", images.image(*layers))
    with daemon.running(store, mountpoint) as running:
        text = clients.read(running.images / str(reference) / "lowerdir").decode().strip()
        merged = tmp_path / "merged"
        merged.mkdir()
        since = own_registry.mark()
        command = ("mount", "-t", "overlay", "overlay", "-o", text, merged)
        with own_registry.paused(), clients.started(*command) as mounting:
            running.wait_for_callers(1)
            clients.wait_until(lambda: _connections(own_registry.port) >= len(layers))
            own_registry.resume()
            assert clients.finish(mounting).returncode == 0
        try:
            assert (merged / "top").read_bytes() == b"5"
        finally:
            mounts.clear(merged)
        assert sorted(map(str, own_registry.blob_requests(since))) == sorted(
            str(layer.digest) for layer in layers
        )


def _connections(port: int) -> int:
    """Count the established connections to a loopback port."""
    wanted = f":{port:04X} 01"
    return sum(
        f"{fields[2].rpartition(':')[1]}{fields[2].rpartition(':')[2]} {fields[3]}" == wanted
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())
    )


@pytest.mark.parametrize(
    "place",
    [
        "all: ,\\of them",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("a b", "co:lon", "com,ma", "back\\slash")),
    ],
)
def test_mountpoints_and_stores_may_have_any_name(registry: Registry, tmp_path: Path, place: str) -> None:
    layers = numbered(3)
    reference = registry.push("overlay/names", "latest", images.image(*layers))
    mountpoint, store = tmp_path / place / "mnt", tmp_path / place / "store"
    with daemon.running(store, mountpoint) as running:
        image = running.images / str(reference)
        text = clients.read(image / "lowerdir").decode().strip()
        with mounts.overlay(text, tmp_path, upper=False) as merged:
            assert (merged / "top").read_bytes() == b"2"
        for line in clients.read(image / "lowerdirs").decode().splitlines():
            assert os.path.realpath(line).startswith(f"{store}/")
        printed = daemon.layerfs("lowerdir", str(reference), store=store).stdout.strip()
        with mounts.overlay(printed, tmp_path, upper=False) as merged:
            assert (merged / "top").read_bytes() == b"2"
        target = tmp_path / place / "target"
        target.mkdir()
        daemon.layerfs("overlay", str(reference), target, "--rw", store=store)
        try:
            assert (target / "top").read_bytes() == b"2"
            (target / "top").write_bytes(b"mine")
        finally:
            # Again while another test's new namespace has a copy of the mount: then the scratch is in use.
            clients.wait_until(lambda: not unmounted(store, target).returncode)
        assert os.listdir(target) == []


def unmounted(store: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return daemon.layerfs("overlay", "--umount", target, store=store, check=False)


USERNS = """
set -eu
cd "$BASE"
mkdir mnt merged u w ours
python -m layerfs mount --store "$BASE/store" --log-file "$BASE/log" mnt
image=mnt/images/$REFERENCE
mount -t overlay overlay -o "$(cat $image/lowerdir),upperdir=u,workdir=w,userxattr" merged
ls -A merged merged/d; stat -c '%a %u %g' merged/d/mine
rm -r merged/d; mkdir merged/d; ls -A merged/d
umount merged
python -m layerfs overlay --store "$BASE/store" "$REFERENCE" ours --rw
ls -A ours ours/d; rm -r ours/d; mkdir ours/d; ls -A ours/d
python -m layerfs overlay --store "$BASE/store" --umount ours
top=$(realpath $image/layers/01)/lower base=$(realpath $image/layers/00)/lower
mount -t overlay overlay -o "lowerdir=$top:$base,userxattr" merged
ls -A merged merged/d
umount merged
python -m layerfs umount mnt
"""


def test_it_works_for_root_of_a_user_namespace(registry: Registry, tmp_path: Path) -> None:
    base = images.layer(
        ROOT, images.directory("d"), images.file("d/x"), images.file("gone"), images.file("kept")
    )
    mine = images.file("d/mine", b"mine", mode=0o640, uid=1000, gid=1000)
    top = images.layer(ROOT, images.directory("d"), images.opaque("d"), mine, images.whiteout("gone"))
    reference = registry.push("overlay/userns", "latest", images.image(base, top))
    done = as_namespace_root(
        USERNS,
        daemon.clean_environment()
        | {
            "BASE": str(tmp_path),
            "REFERENCE": str(reference),
            "PATH": f"{Path(daemon.LAYERFS[0]).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )

    assert done.returncode == 0, done.stderr
    tree = ["merged:", "d", "kept", "merged/d:", "mine"]
    assert done.stdout.split() == [
        *tree, "640", "1000", "1000",
        "ours:", "d", "kept", "ours/d:", "mine",
        *tree,
    ]  # fmt: skip


def test_the_container_reads_what_the_disk_has(scene: Scene, tmp_path: Path) -> None:
    place = scene.place("busybox", images.layer(*BUSYBOX), images.layer(ROOT, images.file("x", b"x")))
    with mounts.overlay(place.lowerdir(), tmp_path, upper=False) as merged:
        on_disk = shutil.which("busybox", path=str(merged / "bin"))
        assert on_disk is not None
        layer = scene.storage.layer_extracted_path(place.built.layers[0].digest)
        assert os.stat(on_disk).st_ino == os.stat(layer / "bin/busybox").st_ino
