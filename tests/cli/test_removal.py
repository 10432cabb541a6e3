"""``layerfs rm``, ``layerfs gc`` and ``layerfs df``: what goes, what stays and for whom."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.support.images import directory, file, image, layer
from tests.support.mounts import unmount
from tests.support.registry import Registry

BASE = layer(directory("etc"), file("etc/base", b"base" * 5000))
OLD, NEW = layer(file("old", b"old" * 3000)), layer(file("new", b"new"))
FIRST, SECOND = image(BASE, OLD), image(BASE, NEW)


@pytest.fixture
def pulled(layerfs: CommandLine, registry: Registry) -> tuple[str, str]:
    """Two images that share a layer, in the store."""
    names = str(registry.push("rm/first", "1", FIRST)), str(registry.push("rm/second", "1", SECOND))
    layerfs("pull", "-q", *names)
    return names


def du(path: Path) -> int:
    """Return what du(1) says."""
    found = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def df(layerfs: CommandLine) -> dict[str, Any]:
    """Return what ``layerfs df`` says."""
    found: dict[str, Any] = json.loads(layerfs("df", "--json").stdout)
    return found


def test_df_says_what_du_says(layerfs: CommandLine, pulled: tuple[str, str]) -> None:
    found = df(layerfs)
    assert found["total"]["size"] == du(layerfs.store)
    assert found["total"]["reclaimable"] == 0
    names = {"blobs": "layers", "extracted": "extracted", "covers": "covers"}
    for row, place in names.items():
        directory = layerfs.store / place
        assert found[row]["size"] == du(directory) - directory.lstat().st_blocks * 512


def test_rm_takes_what_nothing_else_needs_and_says_what_stays_for_whom(
    layerfs: CommandLine, pulled: tuple[str, str]
) -> None:
    first, second = pulled
    before = df(layerfs)["total"]["size"]
    would = json.loads(layerfs("rm", "--dry-run", "--json", first).stdout)
    assert layerfs("images", "-q").stdout.split() == [first, second]
    done = json.loads(layerfs("rm", "--json", first).stdout)
    assert would | {"dry_run": False} == done
    assert {(one["kind"], one["digest"]) for one in done["removed"]} >= {
        ("layer", str(OLD.digest)), ("blob", str(OLD.digest)), ("manifest", str(FIRST.digest)),
    }  # fmt: skip
    kept = {(one["kind"], one["digest"]): one["for"] for one in done["kept"]}
    assert kept[("layer", str(BASE.digest))] == [second]
    after = df(layerfs)["total"]["size"]
    assert abs(before - after - done["freed"]) <= 0.01 * before + 4096
    assert layerfs("images", "-q").stdout.split() == [second]
    with ImageStorage(layerfs.store) as storage:
        assert storage.open_layer(BASE.digest) is not None
        assert storage.open_layer(OLD.digest) is None


def test_rm_says_it_in_words(layerfs: CommandLine, pulled: tuple[str, str]) -> None:
    first, second = pulled
    lines = layerfs("rm", first).stdout.splitlines()
    assert lines[0] == f"removed {first}"
    assert lines[1].startswith("freed ")
    assert lines[1].endswith(" (1 layer, 1 cover, 1 blob, 2 documents)")
    assert lines[2].startswith("stays ")
    assert lines[2].endswith(f": {second}")


@pytest.mark.parametrize("id_", [str(FIRST.digest), FIRST.digest.hex[:12], FIRST.config_digest.hex[:12]])
def test_an_image_is_named_by_its_digest_or_its_id(
    layerfs: CommandLine, pulled: tuple[str, str], id_: str
) -> None:
    layerfs("rm", id_)
    assert layerfs("images", "-q").stdout.split() == [pulled[1]]


def test_an_unknown_name_says_what_is_nearly_the_same(layerfs: CommandLine, pulled: tuple[str, str]) -> None:
    wrong = pulled[0].replace("first", "frist")
    assert f"did you mean {pulled[0]}" in layerfs("rm", wrong, code=3).stderr
    layerfs("rm", code=2)
    layerfs("rm", "--all", wrong, code=2)


def test_rm_all_empties_the_store(layerfs: CommandLine, pulled: tuple[str, str]) -> None:
    layerfs("rm", "--all")
    totals = df(layerfs)
    assert [totals[row]["count"] for row in ("blobs", "extracted", "covers", "documents")] == [0, 0, 0, 0]


def test_what_a_mount_uses_stays_whatever_is_forced(
    layerfs: CommandLine, pulled: tuple[str, str], tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    layerfs("overlay", pulled[0], merged)
    try:
        assert df(layerfs)["extracted"]["in_use"] > 0
        done = json.loads(layerfs("rm", "--force", "--json", pulled[0]).stdout)
        kept = {(one["kind"], one["digest"]): one["for"] for one in done["kept"]}
        assert f"mount {merged}, seen by process" in kept[("layer", str(OLD.digest))][0]
        assert (merged / "old").read_bytes() == b"old" * 3000
        assert str(merged) in layerfs("gc").stdout
        assert (merged / "old").read_bytes() == b"old" * 3000
    finally:
        unmount(merged)
    layerfs("gc")
    with ImageStorage(layerfs.store) as storage:
        assert storage.open_layer(OLD.digest) is None


def test_what_a_lease_needs_stays_until_it_ends(layerfs: CommandLine, pulled: tuple[str, str]) -> None:
    with ImageStorage(layerfs.store) as storage:
        storage.lease("build-7", [FIRST.digest], pid=os.getpid())
        done = json.loads(layerfs("rm", "--json", pulled[0]).stdout)
        assert done["removed"] == []
        assert all("lease build-7" in one["for"] for one in done["kept"])
        assert "build-7" in layerfs("lease", "ls").stdout
        layerfs("lease", "rm", "build-7")
        layerfs("gc")
        assert storage.open_layer(OLD.digest) is None


def test_gc_takes_garbage_and_says_what_df_says(layerfs: CommandLine, pulled: tuple[str, str]) -> None:
    with ImageStorage(layerfs.store) as storage:
        for name, _ in list(storage.refs.all()):
            storage.refs.remove(name)
        left = layerfs.store / "extracted" / f"{Digest.of(b'x').name}.{'0' * 32}.extracting"
        left.mkdir()
        (left / "part").write_bytes(b"x" * 10_000)
        before = df(layerfs)["total"]
        would = json.loads(layerfs("gc", "-n", "--json").stdout)
        assert would["freed"] == before["reclaimable"]
        done = json.loads(layerfs("gc", "--json").stdout)
        after = df(layerfs)["total"]
        assert done["freed"] == would["freed"]
        assert abs(before["size"] - after["size"] - done["freed"]) <= 0.01 * before["size"]
        assert not left.exists()
        assert after["reclaimable"] == 0


def test_gc_spares_what_was_used_lately(layerfs: CommandLine, pulled: tuple[str, str]) -> None:
    with ImageStorage(layerfs.store) as storage:
        for name, _ in list(storage.refs.all()):
            storage.refs.remove(name)
        assert json.loads(layerfs("gc", "--older-than", "1h", "--json").stdout)["removed"] == []
        assert storage.open_layer(OLD.digest) is not None
    assert "expected a number with" in layerfs("gc", "--older-than", "soon", code=2).stderr
