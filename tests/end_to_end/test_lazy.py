"""Lazy layers through a real mount: what a look and a file cost, and that all of it is as in whole layers."""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.oci import Digest, Tag
from layerfs.oci.image import LayerKey
from tests.support import clients, daemon
from tests.support.canary import assert_same, snapshot
from tests.support.daemon import Daemon
from tests.support.images import directory, file, hardlink, image, layer, opaque, symlink, tar, whiteout
from tests.support.registry import Registry
from tests.support.tocs import estargz

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

BASE = estargz(
    tar(
        [
            directory("etc", 0o750, uid=3, gid=4),
            file("etc/motd", b"content", 0o4755, uid=7, xattrs={"user.note": b"x"}),
            hardlink("etc/link", "etc/motd"),
            file("etc/empty"),
            file("etc/gone", b"gone"),
            file("large", random.Random(22).randbytes(1 << 20)),
            symlink("symlink", "etc/motd"),
            *(file(f"many/{number}", b"%d" % number) for number in range(300)),
        ]
    ),
    chunk=100_000,
)
TOP = estargz(tar([whiteout("etc/gone"), opaque("many"), file("many/new", b"content")]))
PLAIN = layer(file("plain", b"plain"))
IMAGE = image(BASE.built, PLAIN, TOP.built)


def not_behind(place: Path) -> dict[str, str]:
    """Return the environment of a daemon that fetches nothing but what a test looks at."""
    path = place / "layerfs.toml"
    path.write_text('background = "never"\n')
    return {"LAYERFS_CONFIG": str(path)}


@pytest.fixture(scope="module")
def pushed(_session_registry: Registry) -> Tag:
    return _session_registry.push("e2e/lazy", "1", IMAGE)


@pytest.fixture
def mounted(pushed: Tag, tmp_path: Path) -> Iterator[Daemon]:
    with daemon.running(tmp_path / "store", tmp_path / "mount", environment=not_behind(tmp_path)) as running:
        yield running


def shown(mounted: Daemon, pushed: Tag, *names: str) -> Path:
    """Return a path in the image."""
    return mounted.images.joinpath(str(pushed), *names)


def test_a_look_costs_the_tocs_and_a_file_costs_itself(
    mounted: Daemon, pushed: Tag, registry: Registry
) -> None:
    clients.read(shown(mounted, pushed, "manifest.json"))
    mark = registry.mark()

    subprocess.run(
        ["ls", "-lR", *(f"{shown(mounted, pushed, 'layers', number, 'diff')}/" for number in ("00", "02"))],
        check=True, capture_output=True,
    )  # fmt: skip
    asked = registry.blob_requests(mark)
    assert asked.count(BASE.digest) <= 3
    assert asked.count(TOP.digest) <= 3
    assert PLAIN.digest not in asked

    mark = registry.mark()
    assert clients.read(shown(mounted, pushed, "layers", "00", "diff", "etc", "motd")) == b"content"
    assert clients.read(shown(mounted, pushed, "layers", "00", "diff", "etc", "link")) == b"content"
    assert clients.read(shown(mounted, pushed, "layers", "02", "diff", "many", "new")) == b"content"
    assert len(registry.blob_requests(mark)) <= 1
    assert not (mounted.store / "extracted" / BASE.digest.name).exists()


def test_all_that_is_shown_is_as_in_whole_layers(mounted: Daemon, pushed: Tag) -> None:
    for number, lazy in (("00", BASE), ("02", TOP)):
        for form in ("diff", "lower"):
            name = LayerKey(lazy.digest, lazy.place.digest).name
            before = snapshot(shown(mounted, pushed, "layers", number, form).resolve())
            assert name in str(shown(mounted, pushed, "layers", number).resolve())
            whole = snapshot(mounted.mountpoint / "layers" / lazy.digest.name / form)
            assert_same(before, whole)
    assert (mounted.store / "extracted" / BASE.digest.name).exists()


def test_an_open_file_goes_on_being_read_when_its_layer_becomes_whole(mounted: Daemon, pushed: Tag) -> None:
    """What it was read from goes then: the bytes are in the store once."""
    root = shown(mounted, pushed, "layers", "00", "diff")
    objects = mounted.store / "objects"
    with (root / "etc/motd").open("rb", buffering=0) as small, (root / "large").open("rb") as large:
        assert small.read() == b"content"
        assert len(list(objects.glob("*/*"))) >= 2
        clients.names(mounted.mountpoint / "layers" / BASE.digest.name / "diff")
        assert not list(objects.glob("*/*"))
        for file in (small, large):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
        assert small.read() == b"content"
        assert Digest.of(large.read()).object_id == Digest.of(random.Random(22).randbytes(1 << 20)).object_id
    assert clients.read(root / "etc/link") == b"content"


def test_a_merged_root_is_as_of_whole_layers(mounted: Daemon, pushed: Tag) -> None:
    before = snapshot(shown(mounted, pushed, "rootfs").resolve())
    assert not (mounted.store / "extracted" / BASE.digest.name).exists()
    stack = (shown(mounted, pushed, "lowerdirs")).read_text().splitlines()[0].rpartition("/")[2]
    assert_same(before, snapshot(mounted.mountpoint / "rootfs" / stack))
    assert (mounted.store / "extracted" / BASE.digest.name).exists()


def test_a_mount_on_the_same_store_needs_no_registry_for_what_is_here(pushed: Tag, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with daemon.running(store, tmp_path / "mount", environment=not_behind(tmp_path)) as first:
        assert clients.read(shown(first, pushed, "layers", "00", "diff", "etc", "motd")) == b"content"
    with daemon.running(store, tmp_path / "again", "--offline") as second:
        root = shown(second, pushed, "layers", "00", "diff")
        assert clients.read(root / "etc/motd") == b"content"
        assert clients.names(root) == {"etc", "large", "many", "symlink", "stargz.index.json"}
        with pytest.raises(OSError, match="large"):
            clients.read(root / "large")
