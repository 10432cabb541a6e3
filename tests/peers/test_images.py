"""Images of random layers: overlayfs on cover and layers shows what umoci unpacks."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from layerfs.errors import LayerfsError
from layerfs.layer.paths import clean, split
from layerfs.store.covers import build_cover
from tests.extract.extracting import Extract, Tree
from tests.layer.headers import read
from tests.peers.differences import EXCUSED
from tests.support import canary, images, mounts
from tests.support.random_archives import random_archive

pytestmark = pytest.mark.needs_root


def layers(extract: Extract, number: int) -> Iterator[tuple[bytes, Tree]]:
    """Yield the layers of image *number*, extracted, base first."""
    found = 0
    for candidate in range(number * 40, number * 40 + 40):
        archive = random_archive(candidate)
        if archive.shapes & EXCUSED["umoci"]:
            continue
        try:
            yield archive.content, extract(archive=archive.content)
        except LayerfsError:
            continue
        found += 1
        if found == 2 + number % 4:
            return


def unpacked(archives: Sequence[bytes], base: Path) -> canary.Snapshot | None:
    """Return what umoci makes of an image of these layers; None where it fails."""
    built = images.image(*(images.layer(archive=archive, compression="none") for archive in archives))
    layout, rootfs = images.write_layout(base / "layout", built), base / "umoci"
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:latest", str(rootfs)]
    done = subprocess.run(command, capture_output=True, umask=0o022)
    return None if done.returncode else canary.snapshot(rootfs)


def merged(trees: Sequence[Tree], base: Path) -> canary.Snapshot:
    """Return what overlayfs shows of the layers, as `layerfs overlay` mounts them."""
    paths = [tree.path for tree in trees]
    cover = base / "cover"
    cover.mkdir()
    build_cover(cover, [tree.tables for tree in trees], paths, merger="")
    with mounts.overlay([cover, *reversed(paths)], base, "ro", upper=False) as shown:
        return canary.snapshot(shown)


def lead_through_links(archives: Sequence[bytes], trees: Sequence[Tree]) -> bool:
    """Say whether a layer has something where a lower one has a symlink, or below it.

    umoci follows it, also to obey a marker that a later entry of the layer replaces; overlayfs, and so
    docker, containerd and podman, do not.
    """
    for number, archive in enumerate(archives):
        for member in read(archive)[0]:
            path = clean(member.name, 100)
            while path:
                if any(os.path.islink(os.fsencode(tree.path) + b"/" + path) for tree in trees[:number]):
                    return True
                path = split(path)[0]
    return False


def check(extract: Extract, numbers: range) -> None:
    compared = 0
    for number in numbers:
        base = extract.directory / f"image-{number}"
        base.mkdir()
        archives, trees = zip(*layers(Extract(extract.pool, base), number), strict=True)
        expected = None if lead_through_links(archives, trees) else unpacked(archives, base)
        if expected is not None:
            found = merged(trees, base)
            lines = canary.differences(timeless(expected), timeless(found), ignore_overlay_xattrs=True)
            assert not lines, f"image {number}:\n" + "\n".join(lines)
            compared += 1
        shutil.rmtree(base)
    assert compared > len(numbers) // 3


def timeless(tree: canary.Snapshot) -> canary.Snapshot:
    """Leave out the times of directories, which umoci changes when it adds or removes an entry later."""
    return {path: replace(fact, mtime_ns=0) if fact.kind == "d" else fact for path, fact in tree.items()}


def test_images_of_random_layers_are_what_umoci_unpacks(extract: Extract) -> None:
    check(extract, range(24))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_images_of_random_layers_are_what_umoci_unpacks(extract: Extract) -> None:
    check(extract, range(24, 400))
