"""From a registry to bytes: every kind of image that can be pushed today, through the real mount."""

import errno
import os
import stat
from pathlib import Path

import pytest

from layerfs.oci import Platform
from tests.support import canary, clients, daemon, images, mounts
from tests.support.images import Compression, Style
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


@pytest.mark.parametrize("compression", ["gzip", "none", "zstd"])
@pytest.mark.parametrize("style", ["oci", "docker"])
def test_a_layer_is_served_whatever_its_form(
    registry: Registry, store: Path, mountpoint: Path, style: Style, compression: Compression
) -> None:
    layer = images.layer(images.file("etc/motd", b"hello\n"), compression=compression)
    reference = registry.push(f"e2e/form-{style}", compression, images.image(layer, style=style))

    with daemon.running(store, mountpoint) as running:
        image = running.images / str(reference)

        assert clients.read(image / "layers/00/diff/etc/motd") == b"hello\n"
        assert clients.read(image / "rootfs/etc/motd") == b"hello\n"
        assert clients.read(mountpoint / "layers" / layer.digest.name / "blob") == layer.blob


def test_documents_are_served_as_they_are_and_fetch_no_layer(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    built = images.image(images.layer(images.file("a")), images.layer(images.file("b")))
    reference = registry.push("e2e/documents", "latest", built)
    since = registry.mark()

    with daemon.running(store, mountpoint) as running:
        image = running.images / str(reference)

        assert clients.read(image / "manifest.json") == built.manifest
        assert clients.read(image / "config.json") == built.config
        assert clients.names(image / "layers") == {"00", "01"}
        assert clients.read(image / "lowerdir").startswith(b"lowerdir=/")
        assert len(clients.read(image / "history").splitlines()) == len(built.layers)
        assert os.readlink(image) == f"documents@{built.digest}"
    assert set(registry.blob_requests(since)) <= {built.config_digest}


def test_an_index_leads_to_this_machines_image_and_to_the_others(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    ours = images.image(images.layer(images.file("which", b"ours")))
    others = images.image(
        images.layer(images.file("which", b"others")), platform=Platform.parse("linux/s390x")
    )
    choice = images.index(others, ours)
    reference = registry.push("e2e/index", "latest", choice)

    with daemon.running(store, mountpoint) as running:
        image = running.images / str(reference)

        assert clients.read(image / "index.json") == choice.manifest
        assert clients.read(image / "manifest.json") == ours.manifest
        assert clients.read(image / "layers/00/diff/which") == b"ours"
        assert clients.read(image / "platforms/linux-s390x/layers/00/diff/which") == b"others"


def test_reading_one_layer_fetches_that_one_alone_and_once(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    built = images.image(*(images.layer(images.file("n", bytes([n]))) for n in range(3)))
    reference = registry.push("e2e/one", "latest", built)
    since = registry.mark()

    for _ in range(2):
        with daemon.running(store, mountpoint) as running:
            assert clients.read(running.images / str(reference) / "layers/01/diff/n") == b"\1"

    layers = [digest for digest in registry.blob_requests(since) if digest != built.config_digest]
    assert layers == [built.layers[1].digest]


def test_diff_keeps_markers_and_lower_shows_what_they_mean(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    base = images.layer(images.directory("d"), images.file("d/x"), images.file("gone"))
    top = images.layer(
        images.whiteout("gone"), images.directory("d"), images.opaque("d"), images.file("d/y", b"y")
    )
    reference = registry.push("e2e/markers", "latest", images.image(base, top))

    with daemon.running(store, mountpoint) as running:
        layer = running.images / str(reference) / "layers/01"

        assert clients.names(layer / "diff") == {".wh.gone", "d"}
        assert clients.names(layer / "diff/d") == {".wh..wh..opq", "y"}
        assert clients.names(layer / "lower") == {"gone", "d"}
        whiteout = os.lstat(layer / "lower/gone")
        assert (stat.S_ISCHR(whiteout.st_mode), whiteout.st_rdev) == (True, 0)
        assert clients.names(layer / "lower/d") == {"y"}
        for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
            assert os.getxattr(layer / "lower/d", name) == b"y"


def test_overlay_on_the_lowerdirs_equals_rootfs(
    registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    root = images.directory("./", mtime=7)  # an overlay shows the root's own attributes of its top layer
    base = images.layer(
        root,
        images.directory("d"),
        images.file("d/x", b"x" * 5000, mode=0o4755, uid=3, gid=4),
        images.file("gone"),
        images.hardlink("same", "d/x"),
        images.directory("tmp", mode=0o1777),
        images.symlink("link", "d/x"),
    )
    middle = images.layer(images.whiteout("gone"), images.file("tmp/implied", b"parent without entry"))
    top = images.layer(
        root, images.directory("d"), images.opaque("d"), images.file("d/y", b"y", xattrs={"user.k": b"v"})
    )
    reference = registry.push("e2e/union", "latest", images.image(base, middle, top))

    with daemon.running(store, mountpoint) as running:
        image = running.images / str(reference)
        lowerdir = clients.read(image / "lowerdir").decode()
        with mounts.overlay(lowerdir, tmp_path / "o", upper=False) as merged:
            kernel = canary.snapshot(merged)
        ours = canary.snapshot((image / "rootfs").resolve())

    assert b"d/y" in kernel
    assert b"gone" not in kernel
    assert kernel[b"tmp"].mode == 0o1777
    canary.assert_same(kernel, ours, ignore_overlay_xattrs=True)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param("Not A Name", errno.ENOENT, id="no reference"),
        pytest.param(".git", errno.ENOENT, id="what tools look for"),
        pytest.param("missing:latest/manifest.json", errno.ENOENT, id="no such tag"),
    ],
)
def test_a_name_that_leads_nowhere_is_said_to(
    registry: Registry, store: Path, mountpoint: Path, name: str, number: int
) -> None:
    with (
        daemon.running(store, mountpoint) as running,
        pytest.raises(OSError, match=os.strerror(number)) as caught,
    ):
        clients.read(running.images / registry.host / "e2e" / name)

    assert caught.value.errno == number


def test_walking_the_mount_asks_for_nothing(registry: Registry, store: Path, mountpoint: Path) -> None:
    reference = registry.push("e2e/walked", "latest", images.image(images.layer(images.file("a"))))
    with daemon.running(store, mountpoint) as running:
        clients.read(running.images / str(reference) / "manifest.json")
        since = registry.mark()

        for command in (["ls", "-lR"], ["find"], ["du", "-s"], ["grep", "-r", "no such text"]):
            assert clients.run(*command, mountpoint).stderr == b""

    assert registry.requests(since) == []


def test_a_layer_whose_blob_was_read_is_fetched_for_the_mount_and_the_command(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    reference = registry.push("states", "latest", images.image(images.layer(images.file("f", b"x"))))
    with daemon.running(store, mountpoint) as running:
        (running.images / str(reference) / "layers" / "00" / "blob").read_bytes()
        shown = (running.images / str(reference) / "history").read_text()

    assert daemon.layerfs("history", str(reference), store=store).stdout == shown
    assert " fetched" in shown
