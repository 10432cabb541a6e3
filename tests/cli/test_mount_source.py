"""`layerfs mount oci:DIR MOUNTPOINT`: a local image in place, beside the default store, without a network."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.support import clients, images, mounts
from tests.support.images import directory, file, image, layer, write_layout

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

BUILT = image(layer(directory("etc"), file("etc/motd", b"hello\n")), layer(file("top", b"1")))


def test_a_layout_is_served_in_place_beside_the_default_store(
    layerfs: CommandLine, tmp_path: Path, mountpoint: Path
) -> None:
    write_layout(tmp_path / "lay", BUILT, "v1")
    before = sorted((tmp_path / "lay").rglob("*"))
    try:
        layerfs("mount", "--log-file", tmp_path / "log", f"oci:{tmp_path}/lay", mountpoint)
        image_ = mountpoint / "images/localhost/lay:v1"
        assert clients.read(image_ / "layers/00/diff/etc/motd") == b"hello\n"
        assert clients.names(image_ / "rootfs/") == {"etc", "top"}
        assert clients.read(image_ / "manifest.json") == BUILT.manifest
        assert clients.read(image_ / "layers/01/blob") == BUILT.layers[1].blob
        lowerdir = clients.read(image_ / "lowerdir").decode().strip()
        with mounts.overlay(lowerdir, tmp_path / "overlay") as merged:
            assert (merged / "etc/motd").read_bytes() == b"hello\n"
        assert clients.run("ls", mountpoint / "images/localhost/lay:v2/rootfs").returncode != 0
        assert clients.run("ls", mountpoint / "images/docker.io/library/alpine:3.20/rootfs").returncode != 0
        shown = json.loads(layerfs("status", mountpoint, "--json").stdout)[0]
        assert Path(shown["store"]).parent == layerfs.store / "local"
        assert any("no registry is asked" in error["message"] for error in shown["errors"])
    finally:
        mounts.clear(mountpoint)
    assert os.listdir(layerfs.store) == ["local"]
    local = json.loads(layerfs("df", "--json").stdout)["local"]
    assert local["count"] == 1
    assert local["size"] > sum(made.size for made in BUILT.layers)
    assert sorted((tmp_path / "lay").rglob("*")) == before


def test_it_is_extracted_once_and_found_again(layerfs: CommandLine, tmp_path: Path, mountpoint: Path) -> None:
    write_layout(tmp_path / "lay", BUILT, "quay.io/a/b:1")
    for _ in range(2):
        try:
            layerfs("mount", "--log-file", tmp_path / "log", f"oci:{tmp_path}/lay:1", mountpoint)
            assert clients.read(mountpoint / "images/quay.io/a/b:1/layers/01/diff/top") == b"1"
        finally:
            mounts.clear(mountpoint)
        (tmp_path / "lay/blobs/sha256" / BUILT.layers[1].digest.hex).unlink(missing_ok=True)


def test_wrong_bytes_are_not_shown(layerfs: CommandLine, tmp_path: Path, mountpoint: Path) -> None:
    path = write_layout(tmp_path / "lay", BUILT, "v1") / "blobs/sha256" / BUILT.layers[0].digest.hex
    path.write_bytes(images.flip_byte(path.read_bytes()))
    try:
        layerfs("mount", "--log-file", tmp_path / "log", f"oci:{tmp_path}/lay", mountpoint)
        done = clients.run("ls", mountpoint / "images/localhost/lay:v1/layers/00/diff/")
        assert b"Input/output error" in done.stderr
        assert clients.names(mountpoint / "images/localhost/lay:v1/layers/01/diff/") == {"top"}
    finally:
        mounts.clear(mountpoint)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["oci:gone", "."], 3, id="no such layout"),
        pytest.param(["docker://alpine", "."], 2, id="no local source"),
        pytest.param(["oci:a", "b", "c"], 2, id="too many words"),
    ],
)
def test_what_cannot_be_mounted_is_refused_at_once(
    layerfs: CommandLine, arguments: list[str], code: int
) -> None:
    layerfs("mount", *arguments, code=code)
