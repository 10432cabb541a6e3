"""A user with no rights at all sees what root sees, and has a store that is his."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from layerfs.layer.lost import Lost
from layerfs.layer.tables import lost_rows
from layerfs.store.records import read_tables
from tests.rootless.household import UID, Household, Mounted
from tests.rootless.inside import Inside
from tests.rootless.scenes import CAPABILITY, PRIVILEGED, link_counts, look, privileged_image
from tests.support import canary, daemon, images, model
from tests.support.registry import Registry
from tests.support.stacks import Stack, patiently, stacks

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def mounted(household: Household) -> Iterator[Mounted]:
    """A daemon of the user on his default store."""
    with household.room().mounted() as made:
        yield made


@pytest.fixture(scope="module")
def inside(mounted: Mounted) -> Iterator[Inside]:
    """A process of the user, who alone may enter the mount."""
    with mounted.inside() as made:
        yield made


@pytest.mark.parametrize("part", ["rootfs", "layers/00/diff", "layers/01/diff", "layers/01/lower"])
def test_the_user_sees_what_root_sees(
    registry: Registry, mounted: Mounted, inside: Inside, store: Path, mountpoint: Path, part: str
) -> None:
    reference = registry.push("rootless/same", "latest", privileged_image())

    with daemon.running(store, mountpoint) as roots:
        expected = look(roots.images / str(reference) / part)
        counts = link_counts(roots.images / str(reference) / part)

    canary.assert_same(expected, inside.call(look, mounted.images / str(reference) / part))
    assert inside.call(link_counts, mounted.images / str(reference) / part) == counts


@settings(patiently, max_examples=20, database=None, suppress_health_check=list(HealthCheck))
@given(stack=stacks())
def test_random_stacks_show_the_specification(
    registry: Registry, mounted: Mounted, inside: Inside, stack: Stack
) -> None:
    built = images.image(*(images.layer(*layer) for layer in stack.layers))
    reference = registry.push("rootless/random", f"d{built.digest.hex[:20]}", built)

    found = inside.call(look, mounted.images / str(reference) / "rootfs")

    canary.assert_same(model.snapshot(model.apply(stack.layers)), found)


def test_tools_get_along_with_it(registry: Registry, mounted: Mounted) -> None:
    reference = registry.push("rootless/tools", "latest", images.image(images.layer(*PRIVILEGED)))
    root = f"{mounted.images}/{reference}/rootfs/"

    assert " 1000 50 5 " in " ".join(mounted.run("ls", "-ln", root).stdout.split())
    said = mounted.run("stat", "--format=%a %u:%g %F %t:%T", f"{root}null").stdout
    assert said == "666 0:0 character special file 1:3\n"
    assert mounted.run("grep", "-rl", "secret", root).stdout == f"{root}locked/secret\n"
    attributes = mounted.run("getfattr", "-h", "-d", "-m", "-", "-e", "hex", f"{root}capable")
    assert f"security.capability=0x{CAPABILITY.hex()}" in attributes.stdout
    listed = mounted.run("getfattr", "-h", "-R", "-d", "-m", "-", root)
    assert 'security.note="on a link"' in listed.stdout
    assert listed.stderr.replace("getfattr: Removing leading '/' from absolute path names\n", "") == ""
    for command in (["find", root, "-ls"], ["du", "-s", root], ["ls", "-lR", root]):
        assert mounted.run(*command).stderr == ""


def test_it_can_be_copied(registry: Registry, household: Household, mounted: Mounted) -> None:
    entries = [entry for entry in PRIVILEGED if entry.name not in ("null", "dev/tty")]
    reference = registry.push("rootless/copied", "latest", images.image(images.layer(*entries)))
    root = mounted.images / str(reference) / "rootfs"
    copy = household.place("copy")
    archive = copy / "archive"

    mounted.run("rsync", "-rlpt", f"{root}/", copy / "tree")
    mounted.run("tar", "-C", root, "-cf", archive, ".")

    assert (copy / "tree/locked/deep/file").read_bytes() == b"deep"
    assert os.readlink(copy / "tree/link") == "owned"
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as opened:
        found = opened.getmember("./locked/deep/file")
        assert (found.uid, found.mode) == (70_000, 0o111)


def test_the_mount_is_private_and_asks_for_no_permissions(mounted: Mounted) -> None:
    line = next(
        line
        for line in mounted.run("cat", "/proc/self/mountinfo").stdout.splitlines()
        if str(mounted.mountpoint) in line
    )

    assert f"user_id={UID}" in line
    assert "default_permissions" not in line
    assert "allow_other" not in line


def test_the_record_says_what_is_lost_and_nothing_else(
    registry: Registry, household: Household, mounted: Mounted, inside: Inside
) -> None:
    base = images.layer(*PRIVILEGED)
    reference = registry.push("rootless/record", "latest", images.image(base))

    inside.call(os.listdir, mounted.images / str(reference) / "layers/00/diff")

    path = household.home / f".local/share/layerfs/extracted/{base.digest.name}.json"
    assert b'"owner":"user"' in path.read_bytes()
    assert {name.decode(): lost for name, lost in lost_rows(read_tables(path).lost)} == {
        "": Lost(owner=(3, 0)),
        "locked": Lost(mode=0, owner=(7, 8)),
        "locked/secret": Lost(mode=0),
        "locked/deep": Lost(mode=0o500),
        "locked/deep/file": Lost(mode=0o111, owner=(70_000, 0)),
        "owned": Lost(owner=(1000, 50)),
        "linked/owned": Lost(owner=(1000, 50)),
        "later": Lost(mode=0o2040, owner=(1, 2)),
        "early": Lost(mode=0o2040, owner=(1, 2)),
        "team": Lost(owner=(0, 9)),
        "null": Lost(mode=stat.S_IFCHR | 0o666, device=(1, 3)),
        "dev/tty": Lost(mode=stat.S_IFCHR | 0o620, owner=(0, 5), device=(5, 0)),
        "pipe": Lost(owner=(4, 0)),
        "capable": Lost(xattrs={b"security.capability": CAPABILITY}),
        "trusted": Lost(xattrs={b"trusted.note": b"for root's eyes"}),
        "link": Lost(owner=(8, 9), xattrs={b"security.note": b"on a link"}),
    }


def test_the_store_can_be_read_and_removed_by_its_owner(registry: Registry, household: Household) -> None:
    reference = registry.push("rootless/removed", "latest", privileged_image())
    store = household.place("store")
    with household.room().mounted("--store", str(store)) as mounted:
        mounted.run("ls", "-lR", mounted.images / str(reference) / "rootfs/")
        lowers = mounted.run("cat", mounted.images / str(reference) / "lowerdirs").stdout.split()
        for lower in lowers:  # the first is the cover
            mounted.run("ls", f"{lower}/")
    assert household.room().run("find", store, "!", "-user", str(UID)).stdout == ""

    household.room().run("tar", "-cf", "/dev/null", store)
    household.room().run("rm", "-rf", store)

    assert not store.exists()


def test_mount_in_the_background_logs_below_the_state_directory(household: Household) -> None:
    point = household.place("mnt")

    household.room().layerfs("mount", point)
    try:
        household.room().run("ls", point / "images")
        log = household.home / ".local/state/layerfs/layerfs.log"
        assert log.stat().st_uid == UID
    finally:
        household.room().layerfs("umount", point)

    assert household.room().run("ls", "-A", point).stdout == ""


def test_a_mount_of_root_is_said_to_be_his(household: Household) -> None:
    point = household.place("mnt")
    options = "fd=9,rootmode=40000,user_id=0,group_id=0"
    household.as_root("sh", "-c", f"exec 9<>/dev/fuse; mount -i -t fuse.layerfs -o {options} layerfs {point}")
    try:
        done = household.room().layerfs("umount", point, check=False)
    finally:
        household.unmount(point)

    assert done.returncode == 1
    assert done.stderr == (
        f"layerfs: {point}: cannot unmount: mounted by root (expected that user, or root)\n"
    )


def test_a_dead_mount_of_the_user_is_replaced(household: Household) -> None:
    with household.room().mounted() as first:
        first.kill()
        assert "endpoint is not connected" in household.room().run("ls", first.mountpoint, check=False).stderr

        with household.room().mounted(mountpoint=first.mountpoint) as second:
            assert "images" in second.run("ls", first.mountpoint).stdout


def test_allow_other_without_leave_says_what_is_missing(household: Household) -> None:
    point = household.place("mnt")

    done = household.room().layerfs("mount", "--allow-other", point, check=False)

    assert done.returncode != 0
    assert "user_allow_other in /etc/fuse.conf" in done.stderr
    assert "Traceback" not in done.stderr
