"""Nothing that a mount uses is ever removed, whoever mounted it, where, and by which names."""

import contextlib
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.errors import StoreError
from tests.overlay.scene import ROOT, Place, Scene
from tests.support import clients, daemon, images, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

WAYS = {
    "links of the mount": 'mount -t overlay overlay -o "$(cat "$IMAGE/lowerdir")" "$TARGET"',
    "directories of the store": 'mount -t overlay overlay -o "$($LAYERFS lowerdir "$REFERENCE")" "$TARGET"',
    "descriptors": '$LAYERFS overlay "$REFERENCE" "$TARGET"',
    "names relative to the store": """
        cd "$STORE/extracted"
        mount -t overlay overlay -o "lowerdir=../covers/$COVER:$TOP:$BASE" "$TARGET"
    """,
    "names relative to lower": """
        cd "$MOUNT/lower"
        names=$(xargs -n 1 basename < "$IMAGE/lowerdirs" | paste -s -d :)
        mount -t overlay overlay -o "lowerdir=$names" "$TARGET"
    """,
    "links of one's own": """
        ln -s "$STORE/covers/$COVER" cover; ln -s "$STORE/extracted/$TOP" top
        ln -s "$(head -n 3 "$IMAGE/lowerdirs" | tail -n 1)" base
        mount -t overlay overlay -o "lowerdir=$PWD/cover:$PWD/top:$PWD/base" "$TARGET"
    """,
    "bind mounts": """
        for name in "extracted/$BASE" "extracted/$TOP" "covers/$COVER"; do
            mount --bind "$STORE/$name" "$TARGET"
        done
    """,
    "a bind mount below": """
        mount --bind "$STORE/extracted/$BASE/d" "$TARGET"
        mount --bind "$STORE/extracted/$TOP/d" "$TARGET"
        mount -t overlay overlay -o "lowerdir=$STORE/covers/$COVER:/usr" "$TARGET"
    """,
    "directories of the store, beside a process in a chroot": """
        mkdir jail && cp /bin/busybox jail
        mount -t overlay overlay -o "$($LAYERFS lowerdir "$REFERENCE")" "$TARGET"
        exec 3<&0
        sh -c 'read end' <&3 &
        exec chroot jail /busybox sh -c 'echo mounted; read end'
    """,
    "an overlay of an overlay": """
        $LAYERFS overlay "$REFERENCE" "$TARGET"
        mount -t overlay overlay -o "lowerdir=$TARGET:/usr" "$TARGET"
    """,
}  # fmt: skip


@contextlib.contextmanager
def mounted_elsewhere(scene: Scene, place: Place, way: str, work: Path) -> Iterator[None]:
    """Mount *place* in a mount namespace that nobody else is in."""
    target = work / "target"
    target.mkdir()
    base, top = (layer.digest for layer in place.built.layers)
    environment = daemon.clean_environment() | {
        "LAYERFS": shlex.join(daemon.LAYERFS),
        "LAYERFS_STORE": str(scene.store),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "STORE": str(scene.store),
        "MOUNT": str(scene.daemon.mountpoint),
        "IMAGE": str(place.path),
        "REFERENCE": str(place.reference),
        "TARGET": str(target),
        "BASE": base.name,
        "TOP": top.name,
        "COVER": scene.storage.cover_path([base, top]).name,
    }
    script = f"set -e\n{way}\necho mounted\nread end"
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script],
        cwd=work,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"mounted\n"
            yield
        finally:
            process.communicate(b"\n\n", timeout=60)


@pytest.mark.parametrize("name", WAYS)
def test_what_another_namespace_mounted_stays_until_it_is_gone(
    scene: Scene, tmp_path: Path, name: str
) -> None:
    base = images.layer(ROOT, images.directory("d"), images.file(f"d/{name}"), images.file("gone"))
    top = images.layer(ROOT, images.directory("d"), images.file("d/y"), images.whiteout(f"gone {name}"))
    place = scene.place("used", base, top)
    clients.names(place.path / "rootfs/")
    scene.overlay(str(place.reference), tmp_path)  # makes the cover
    mounts.unmount(tmp_path)
    storage, stack = scene.storage, [base.digest, top.digest]

    with mounted_elsewhere(scene, place, WAYS[name], tmp_path):
        assert mounts.mount_at(tmp_path / "target") is None
        usage = storage.usage()
        assert not usage.unreadable
        assert not usage.hidden
        for digest in stack:
            assert usage.uses(digest)
            for remove in (storage.remove_layer, storage.discard_layer):
                with pytest.raises(StoreError, match="in use"):
                    remove(digest)
        with pytest.raises(StoreError, match="in use"):
            storage.discard_cover(stack)
        for directory in (storage.layer_extracted_path(base.digest), storage.cover_path(stack)):
            directory.with_suffix(".json").rename(tmp_path / "record")  # as if it were a leftover
            storage.sweep(max_age=0)
            assert directory.is_dir()
            (tmp_path / "record").rename(directory.with_suffix(".json"))
        assert storage.open_layer(base.digest) is not None
        assert storage.cover(stack) is not None

    clients.wait_until(lambda: not any(map(storage.usage().uses, stack)))  # the last process may still end
    assert storage.discard_cover(stack)
    assert all(map(storage.remove_layer, stack))
