"""Stores of others, of too little room, without locks, and without a network."""

import contextlib
import select
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from layerfs.errors import StoreMismatch
from layerfs.store import ImageStorage
from tests.rootless.household import NAMESPACE, STRANGER, UID, Household, Mounted
from tests.support import images
from tests.support.registry import Registry

MAKE = (sys.executable, "-c", "import sys; from layerfs.store import ImageStorage; ImageStorage(sys.argv[1])")
REFERENCE = "127.0.0.1:1/a:1"
"""Nothing is there to be asked."""

pytestmark = pytest.mark.needs_root


@pytest.fixture
def users_store(registry: Registry, household: Household) -> Path:
    """A store that the user has pulled one image into."""
    made = household.place("store")
    layer = images.layer(
        images.file("etc/motd", b"hello\n", uid=5), images.file("secret", b"secret", mode=0o600)
    )
    reference = registry.push("rootless/pulled", "latest", images.image(layer))
    household.room().layerfs("pull", "--store", made, str(reference))
    return made


def test_fuse_overlayfs_as_the_user(registry: Registry, household: Household) -> None:
    """A user's layers are merged rightly in a namespace where nobody may mount anything but FUSE."""
    built = images.image(
        images.layer(
            images.directory("."), images.file("a", b"old"), images.file("d/x"), images.file("gone")
        ),
        images.layer(
            images.whiteout("a"), images.whiteout("gone"), images.opaque("d"), images.file("d/new", b"d")
        ),
        images.layer(images.file("a", b"new"), images.whiteout("b"), images.file("b", b"beside")),
    )
    reference = str(registry.push("rootless/fuse", "latest", built))
    store, point = household.place("store"), household.place("merged")
    room = household.room()

    option = room.layerfs("lowerdir", "--for", "fuse-overlayfs", "--store", store, reference)
    kernels = room.layerfs("lowerdir", "--store", store, reference)
    done = room.run(
        *("unshare", "-Urm", "sh", "-euc", 'fuse-overlayfs -o "$1" "$2" && cd "$2" && find . -type f -print0 '
        "| sort -z | xargs -0 grep -H .", "sh", option.stdout.strip(), point),
    )  # fmt: skip

    assert done.stdout.split() == ["./a:new", "./b:beside", "./d/new:d"]
    assert option.stderr == ""
    assert "fuse-overlayfs loses files with them: --for fuse-overlayfs" in kernels.stderr
    assert room.layerfs("lowerdir", "--for", "kernel", "--store", store, reference).stderr == ""


@pytest.mark.parametrize(
    ("before", "force"), [((), ()), (NAMESPACE, ("--force",))], ids=["user", "namespace"]
)
def test_what_an_ordinary_user_stores_is_verified_and_repaired(
    registry: Registry, household: Household, before: tuple[str, ...], force: tuple[str, ...]
) -> None:
    """Owners, devices and modes that such a store cannot hold are no damage.

    A namespace sees not all mounts of the machine: so nothing is replaced there unless that is forced.
    """
    lower = images.layer(
        images.directory("etc", mode=0o000),
        images.file("etc/shadow", b"x", mode=0, uid=5, gid=7),
        images.file("etc/gone"),
        images.chardev("null", 1, 3),
        images.fifo("pipe"),
        images.file("tool", b"y", mode=0o4755, xattrs={"user.note": b"1", "security.capability": b"2"}),
        images.hardlink("link", "tool"),
    )
    upper = images.layer(images.whiteout("etc/gone"), images.opaque("var"), images.file("var/x"))
    reference = str(registry.push("rootless/verify", "latest", images.image(lower, upper)))
    store, room = household.place("store"), household.room()
    room.layerfs("pull", "-q", "--store", store, reference, before=before)

    assert ", 0 unchecked, 0 wrong" in room.layerfs("verify", "--all", "--store", store, before=before).stdout
    (store / "extracted" / lower.digest.name / "tool").chmod(0o777)
    repaired = room.layerfs("verify", "--all", "--repair", *force, "--store", store, before=before).stdout
    assert "tool: mode 0777 (expected 4755)" in repaired
    assert ", 1 repaired, 0 unchecked, 0 wrong" in repaired
    assert " 0 wrong" in room.layerfs("verify", "--all", "--store", store, before=before).stdout


def test_root_does_not_use_the_users_store(users_store: Path) -> None:
    with pytest.raises(StoreMismatch, match=f"belongs to user {UID} .expected root.; run as user {UID}, use"):
        ImageStorage(users_store)


def test_the_user_does_not_use_roots_store(household: Household) -> None:
    store = household.base / "roots-store"
    ImageStorage(store)

    done = household.room().layerfs("images", "--store", store, check=False)

    assert f"made by root and closed to user {UID} (expected the same user); run as root, use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_namespace_does_not_use_the_users_store(users_store: Path, household: Household) -> None:
    done = household.room().layerfs("images", "--store", users_store, before=NAMESPACE, check=False)

    assert f"made by user {UID}, opened by root of a user namespace with the ids 0:" in done.stderr


def test_a_namespace_with_other_ids_is_another_owner(household: Household) -> None:
    store = household.place("store")
    household.room().run(*NAMESPACE, *MAKE, store)

    household.room().layerfs("images", "--store", store, before=NAMESPACE)
    done = household.room().layerfs("images", "--store", store, before=("unshare", "-Ur"), check=False)

    assert f"opened by root of a user namespace with the ids 0:{UID}:1 " in done.stderr
    assert "enter such a namespace (podman unshare, or unshare -Urm --map-auto)" in done.stderr


def test_namespace_and_user_have_stores_side_by_side(household: Household) -> None:
    data = household.home / ".local/share"

    household.room().layerfs("tree", REFERENCE, check=False)
    household.room().layerfs("tree", REFERENCE, before=NAMESPACE, check=False)

    assert (data / "layerfs/owner.json").exists()
    assert (data / "layerfs-namespace/owner.json").exists()


def test_a_store_that_is_shared_serves_other_users(users_store: Path, household: Household) -> None:
    household.home.chmod(0o711)
    point = household.place("mnt", STRANGER)
    stranger = household.room(STRANGER)
    try:
        closed = stranger.layerfs("images", "--store", users_store, check=False)
        assert f"belongs to user {UID} (expected user {STRANGER} or root)" in closed.stderr
        pulled = household.room().layerfs("images", "--quiet", "--store", users_store).stdout.strip()
        household.room().layerfs("pull", "--share-store", "--store", users_store, pulled)
        with stranger.mounted(
            "--store", str(users_store), "--store-owner", str(UID), mountpoint=point
        ) as mounted:
            root = next(iter(mounted.run("ls", f"{point}/rootfs").stdout.split()))
            motd = f"{point}/rootfs/{root}/etc/motd"

            assert mounted.run("cat", motd).stdout == "hello\n"
            assert mounted.run("stat", "--format=%u", motd).stdout == "5\n"
            refused = mounted.run("cat", f"{point}/rootfs/{root}/secret", check=False)
            assert "Permission denied" in refused.stderr
    finally:
        household.home.chmod(0o700)


def test_users_fill_the_store_of_a_service_account(registry: Registry, household: Household) -> None:
    """By the script of docs/hpc.md, which takes names and no options; of two at once neither fails."""
    names = [
        str(registry.push("rootless/filled", tag, images.image(images.layer(images.file(tag, tag.encode())))))
        for tag in ("one", "two")
    ]
    store, work = household.place("account"), household.place("script")
    text = (Path(__file__).parents[2] / "docs/hpc.md").read_text()
    script = text.partition("<!-- layerfs-pull -->\n```bash\n")[2].partition("```")[0]
    for written, ours in (
        ("/apps/layerfs/0.1/bin/layerfs", f"{sys.executable} -m layerfs"),
        ("/shared/layerfs", store),
    ):
        assert written in script
        script = script.replace(written, str(ours))
    account = household.room()
    household.seen(work).joinpath("layerfs-pull").write_text(script)
    household.home.chmod(0o711)
    try:
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(lambda some: account.run("sh", f"{work}/layerfs-pull", *some), [names, names[::-1]])
            )
        refused = account.run("sh", f"{work}/layerfs-pull", "--authfile=/etc/hostname", names[0], check=False)
        seen = (
            household.room(STRANGER)
            .layerfs("images", "--quiet", "--store", store, "--store-owner", str(UID))
            .stdout
        )
    finally:
        household.home.chmod(0o700)
    assert refused.returncode == 2
    assert "--authfile=/etc/hostname" in refused.stderr
    assert sorted(seen.split()) == sorted(names)


def test_a_home_without_locks_is_refused_with_a_way_out(household: Household) -> None:
    store = household.place("store")
    strace = (
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        f"{store}/lock",
        "-e",
        "inject=fcntl:error=ENOLCK",
    )

    done = household.room().layerfs("tree", "--store", store, REFERENCE, before=strace, check=False)

    assert done.returncode != 0
    assert f"{store}/lock: this filesystem has no locks, as some homes on NFS" in done.stderr
    assert "choose a directory of your own on a local disk with --store" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_quota_left_is_no_room_left(registry: Registry, household: Household) -> None:
    reference = registry.push("rootless/quota", "latest", images.image(images.layer(images.file("f", b"it"))))
    with household.room().mounted("--store", str(household.place("store"))) as mounted:
        file = mounted.images / str(reference) / "layers/00/diff/f"
        with failing(mounted, "inject=mkdir,mkdirat:error=EDQUOT"):
            assert "No space left on device" in mounted.run("cat", file, check=False).stderr

        assert mounted.run("cat", file).stdout == "it"
    assert "Disk quota exceeded" in mounted.log()


@contextlib.contextmanager
def failing(mounted: Mounted, injection: str) -> Iterator[None]:
    """Let system calls of a daemon and its threads fail for a block; strace does it."""
    command = ["strace", "-f", "-p", str(mounted.process.pid), "-o", "/dev/null", "-e", injection]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    try:
        assert select.select([tracer.stderr], [], [], 60)[0]
        assert b"attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def test_offline_asks_nobody_and_names_what_is_missing(registry: Registry, household: Household) -> None:
    store = household.place("store")
    here, missing = images.layer(images.file("here", b"here")), images.layer(images.file("missing"))
    reference = registry.push("rootless/offline", "latest", images.image(here, missing))
    with household.room().mounted("--store", str(store)) as mounted:
        mounted.run("cat", mounted.images / str(reference) / "layers/00/diff/here")
    since = registry.mark()

    with household.room().mounted("--offline", "--store", str(store)) as mounted:
        image = mounted.images / str(reference)
        assert mounted.run("cat", image / "layers/00/diff/here").stdout == "here"
        refused = mounted.run("cat", image / "layers/01/diff/missing", check=False)
        unknown = mounted.run("cat", mounted.images / registry.host / "no/such:tag/config.json", check=False)
        status = mounted.run("cat", mounted.mountpoint / ".layerfs/status.json").stdout
    pulled = household.room().layerfs("lowerdir", "--offline", "--store", store, str(reference), check=False)

    assert "Network is down" in refused.stderr
    assert "Network is down" in unknown.stderr
    for said in (mounted.log(), status, pulled.stderr):
        assert str(missing.digest) in said
        assert "run without --offline to fetch it" in said
    assert registry.requests(since) == []
