"""Root of a user namespace acts as root: real owners, native lowerdirs, containers on them."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.layer.lost import Lost
from layerfs.layer.tables import lost_rows
from layerfs.store.records import read_tables
from tests.conftest import skip_for_lack_of
from tests.rootless.household import SUBORDINATE, UID, Household, Mounted, Room
from tests.rootless.inside import Inside
from tests.rootless.scenes import PRIVILEGED, look, privileged_image
from tests.support import canary, daemon, images
from tests.support.images import BuiltImage, Entry
from tests.support.registry import Registry

pytestmark = pytest.mark.needs_root


def mapped(entry: Entry) -> Entry:
    """Return *entry* with ids that the namespace has."""
    return entry.with_(uid=entry.uid % 60_000, gid=entry.gid % 60_000)


MAPPED = tuple(map(mapped, PRIVILEGED))


@pytest.fixture(scope="module")
def mounted(household: Household) -> Iterator[Mounted]:
    """A daemon in a namespace of the user, on its default store there."""
    with household.namespace() as entered, entered.mounted() as made:
        yield made


@pytest.fixture(scope="module")
def inside(mounted: Mounted) -> Iterator[Inside]:
    """A process in that namespace."""
    with mounted.inside() as made:
        yield made


@pytest.mark.parametrize("part", ["rootfs", "layers/00/diff"])
def test_root_of_a_namespace_sees_what_root_sees(
    registry: Registry, mounted: Mounted, inside: Inside, store: Path, mountpoint: Path, part: str
) -> None:
    reference = registry.push("namespace/same", "latest", images.image(images.layer(*MAPPED)))

    with daemon.running(store, mountpoint) as roots:
        expected = look(roots.images / str(reference) / part)

    canary.assert_same(expected, inside.call(look, mounted.images / str(reference) / part))


def test_owners_are_real_and_only_devices_are_lost(
    registry: Registry, household: Household, mounted: Mounted, inside: Inside
) -> None:
    base = images.layer(*MAPPED)
    top = images.layer(images.whiteout("pipe"), images.directory("plain"), images.opaque("plain"))
    reference = registry.push("namespace/owners", "latest", images.image(base, top))
    for number in (0, 1):
        inside.call(os.listdir, mounted.images / str(reference) / f"layers/0{number}/diff")
    extracted = household.home / ".local/share/layerfs-namespace/extracted"

    status = os.lstat(extracted / base.digest.name / "owned")
    assert (status.st_uid, status.st_gid) == (SUBORDINATE + 999, SUBORDINATE + 49)
    assert os.lstat(extracted / base.digest.name / "plain").st_uid == UID
    whiteout = os.lstat(extracted / top.digest.name / "pipe")
    assert (stat.S_ISCHR(whiteout.st_mode), whiteout.st_rdev) == (True, 0)
    assert os.getxattr(extracted / top.digest.name / "plain", "user.overlay.opaque") == b"y"
    tables = read_tables(extracted / f"{base.digest.name}.json")
    assert {name.decode(): lost for name, lost in lost_rows(tables.lost)} == {
        "null": Lost(mode=stat.S_IFCHR | 0o666, device=(1, 3)),
        "dev/tty": Lost(mode=stat.S_IFCHR | 0o620, device=(5, 0)),
        "trusted": Lost(xattrs={b"trusted.note": b"for root's eyes"}),
        "link": Lost(xattrs={b"security.note": b"on a link"}),
        "locked": Lost(mode=0),
        "locked/secret": Lost(mode=0),
        "locked/deep": Lost(mode=0o500),
        "locked/deep/file": Lost(mode=0o111),
        "later": Lost(mode=0o2040),
        "early": Lost(mode=0o2040),
    }


def busybox_image() -> BuiltImage:
    """Build an image that a container can run in: two layers, markers, an implied directory."""
    base = images.layer(
        images.directory("bin"),
        images.file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o4755),
        images.symlink("bin/sh", "busybox"),
        images.directory("proc"),
        images.directory("dev"),
        images.file("gone"),
        images.directory("hidden"),
        images.file("hidden/old"),
        images.file("home/user/note", b"mine", mode=0o600, uid=1000, gid=1000),
    )
    top = images.layer(
        images.whiteout("gone"),
        images.directory("hidden"),
        images.opaque("hidden"),
        images.file("hidden/new"),
    )
    return images.image(base, top)


_CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts")
_SCRIPT = """
set -e
/bin/busybox mount -t proc none /proc
/bin/busybox id -u
/bin/busybox ls /hidden
/bin/busybox stat -c %u:%a /home/user/note
echo changed > /hidden/new
/bin/busybox chown 1000:1000 /hidden/new
/bin/busybox stat -c %u /hidden/new
[ ! -e /gone ] || echo "gone is not gone"
"""
_SAID = "0\nnew\n1000:600\n1000\n"


def container(room: Room, merged: Path) -> str:
    """Run a container's first process on *merged* and return what it printed."""
    return room.run(*_CONTAINER, "chroot", merged, "/bin/sh", "-c", _SCRIPT).stdout


def test_a_container_runs_on_the_lowerdirs_and_survives_the_daemon(
    registry: Registry, household: Household
) -> None:
    reference = registry.push("namespace/container", "latest", busybox_image())
    place = household.place("overlay")
    with household.namespace() as entered, entered.mounted() as mounted:
        entered.run("mkdir", place / "upper", place / "work", place / "merged")
        lowerdir = entered.run("cat", mounted.images / str(reference) / "lowerdir").stdout.strip()
        options = f"{lowerdir},upperdir={place}/upper,workdir={place}/work,userxattr"
        entered.run("mount", "-t", "overlay", "overlay", "-o", options, place / "merged")

        assert container(entered, place / "merged") == _SAID
        mounted.kill()
        assert "not connected" in entered.run("ls", mounted.mountpoint, check=False).stderr

        assert container(entered, place / "merged") == _SAID


def test_layerfs_overlay_mounts_it_without_a_daemon(registry: Registry, household: Household) -> None:
    reference = registry.push("namespace/container", "latest", busybox_image())
    merged = household.place("merged")
    with household.namespace() as entered:
        entered.layerfs("overlay", "--rw", str(reference), merged)

        assert container(entered, merged) == _SAID
        assert "userxattr" in entered.run("cat", "/proc/self/mountinfo").stdout

        entered.layerfs("overlay", "--umount", merged)
        assert entered.run("ls", "-A", merged).stdout == ""


def test_layerfs_overlay_outside_of_a_namespace_says_where_it_would_work(
    registry: Registry, household: Household
) -> None:
    reference = registry.push("namespace/container", "latest", busybox_image())

    done = household.room().layerfs("overlay", str(reference), household.place("merged"), check=False)

    assert done.returncode != 0
    assert "Operation not permitted (root may, and root of a user namespace: podman unshare" in done.stderr


def test_podman_unshare_is_such_a_namespace(registry: Registry, household: Household) -> None:
    if shutil.which("podman") is None:
        skip_for_lack_of("podman")
    reference = registry.push("namespace/podman", "latest", privileged_image())
    store = household.place("store")
    user = household.room()
    with user.mounted("--store", str(store), before=("podman", "unshare")):
        mapping = json.loads((store / "owner.json").read_text())["mapping"]
    user.layerfs("pull", "--store", store, str(reference), before=("podman", "unshare"))

    assert mapping.split()[0] == f"0:{UID}:1,1:{SUBORDINATE}:65536"
    assert SUBORDINATE + 999 in {path.stat().st_uid for path in store.glob("extracted/*/*")}
    user.run("podman", "unshare", "rm", "-rf", store)
    assert not store.exists()


def test_the_users_own_store_serves_a_namespace_with_one_id(registry: Registry, household: Household) -> None:
    """The mount is outside, made by the user; inside all of his is root's, as his is the only id there."""
    reference = registry.push("namespace/container", "latest", busybox_image())
    place = household.place("overlay")
    script = f"""
        set -e
        mkdir {place}/upper {place}/work {place}/merged
        options=upperdir={place}/upper,workdir={place}/work,userxattr
        mount -t overlay overlay {place}/merged -o "$(cat "$1"/lowerdir),$options"
        chroot {place}/merged /bin/busybox ls -ln / /hidden
    """
    with household.room().mounted() as mounted:
        image = mounted.images / str(reference)
        said = mounted.run("unshare", "-Urm", "sh", "-c", script, "sh", image).stdout

    assert "gone" not in said
    assert ".wh." not in said
    assert said.rstrip().endswith(" new")


def test_a_sandbox_runs_on_the_mount_itself(registry: Registry, household: Household) -> None:
    """What Apptainer does with a directory: a namespace of the user, and a bind mount of rootfs."""
    if shutil.which("bwrap") is None:
        skip_for_lack_of("bwrap (package bubblewrap)")
    reference = registry.push("namespace/container", "latest", busybox_image())
    with household.room().mounted() as mounted:
        root = f"{mounted.images}/{reference}/rootfs"
        sandbox = ("bwrap", "--unshare-all", "--ro-bind", f"{root}/", "/", "--proc", "/proc", "--dev", "/dev")

        said = mounted.run(*sandbox, "/bin/sh", "-c", "/bin/busybox cat /home/user/note; /bin/busybox id -u")

    assert said.stdout == f"mine{UID}\n"
