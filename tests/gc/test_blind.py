"""Who cannot see all mounts of a machine keeps what one of them may use, and says why; in real namespaces."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from layerfs.gc.jobs import Outcome, collect_garbage, remove_images
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.gc.racing import (
    DIGESTS,
    IMAGES,
    LAYERS,
    REPOSITORY,
    STACKS,
    fill,
    mount_stack,
    private_mounts,
    unmount_stack,
)
from tests.store.helpers import as_user, child, publish, shared_place
from tests.support.daemon import LAYERFS

pytestmark = pytest.mark.needs_root

USED, UNUSED = 0, 3
"""Two images without a layer in common."""
UID = 54321


def put(storage: ImageStorage, which: int) -> None:
    """Have an image with its cover, and no name for it."""
    for number in STACKS[which]:
        publish(storage, LAYERS[number].blob, partial(fill, number=number))
    storage.publish_cover([DIGESTS[number] for number in STACKS[which]])
    storage.save_manifest(IMAGES[which].manifest, IMAGES[which].digest)
    storage.save_config(IMAGES[which].config, IMAGES[which].config_digest)


def layers_of(store: Path) -> set[str]:
    """Return which layers there are."""
    return {name for name in os.listdir(store / "extracted") if not name.endswith(".json")}


ALL = {DIGESTS[number].name for which in (USED, UNUSED) for number in STACKS[which]}
IN_USE = {DIGESTS[number].name for number in STACKS[USED]}


@pytest.fixture
def used(layerfs: CommandLine, tmp_path: Path) -> Iterator[CommandLine]:
    """A store with two images without a name, one of which is mounted."""
    with ImageStorage(layerfs.store) as storage:
        put(storage, USED)
        put(storage, UNUSED)
        point = tmp_path / "mnt"
        point.mkdir()
        mount_stack(storage, USED, point)
    yield layerfs
    unmount_stack(point)


def run(layerfs: CommandLine, *before: str, force: bool = False) -> str:
    """Collect garbage as another place sees it; return why layers stay."""
    command = [*before, *LAYERFS, "gc", "--json", *(["--force"] if force else [])]
    done = subprocess.run(command, env=layerfs.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    reasons = {reason for one in json.loads(done.stdout)["kept"] for reason in one["for"]}
    return "\n".join(sorted(reasons))


def test_in_a_pid_namespace_of_its_own_gc_keeps_what_others_may_have_mounted(used: CommandLine) -> None:
    namespace = ("unshare", "--pid", "--fork", "--mount-proc")
    why = run(used, *namespace)
    assert "this is a pid namespace of its own: mounts of processes outside are not seen" in why
    assert layers_of(used.store) == ALL
    assert os.listdir(used.store / "layers") == []  # no mount uses blobs
    why = run(used, *namespace, force=True)
    assert "pid namespace" not in why
    assert layers_of(used.store) == IN_USE  # its mount is in this namespace, too
    run(used)
    assert layers_of(used.store) == IN_USE


def test_without_proc_nothing_is_removed_and_the_error_says_what_is_missing(
    used: CommandLine, tmp_path: Path
) -> None:
    script = 'mount --bind / "$1"; mount --bind /dev "$1/dev"; root=$1; shift; exec chroot "$root" "$@"'
    root = tmp_path / "root"
    root.mkdir()
    command = ["unshare", "-m", "sh", "-euc", script, "sh", str(root), *LAYERFS, "gc", "--force"]
    done = subprocess.run(command, env=used.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "/proc/sys/kernel/random/boot_id: cannot be read (expected /proc, as mount" in done.stderr
    assert "Traceback" not in done.stderr
    assert layers_of(used.store) == ALL


def as_plain_user(
    work: Callable[[Path], None], *, hidepid: bool = False, shared: bool = False, linked: bool = False
) -> None:
    """Run *work* on a store of an ordinary user, in a mount namespace of its own; root has a mount of it."""
    with shared_place() as place:
        (place / "links").mkdir(0o700)  # root's
        (place / "mnt").mkdir()

        def prepare() -> None:
            with ImageStorage(place / "store", shared=shared) as storage:
                put(storage, USED)
                put(storage, UNUSED)

        def inside() -> None:
            private_mounts()
            if hidepid:
                subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
            as_user(UID, lambda: work(place / "store"))

        as_user(UID, prepare)
        with child(partial(mount_elsewhere, place, linked=linked)):
            as_user(0, inside)


def mount_elsewhere(place: Path, *, linked: bool) -> None:
    """Mount layers in a namespace of its own, as root; if *linked* by names that only root can follow."""
    private_mounts()
    lowers = [place / "store/extracted" / DIGESTS[number].name for number in STACKS[USED]]
    if linked:
        for lower in lowers:
            (place / "links" / lower.name[-8:]).symlink_to(lower)
        lowers = list((place / "links").iterdir())
    option = f"lowerdir={':'.join(map(str, lowers))}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", option, place / "mnt"], check=True)


def reasons(done: Outcome) -> set[str]:
    """Return why trees stay."""
    return {reason for kept in done.kept for reason in kept.reasons if kept.what.kind in ("layer", "cover")}


def test_with_hidepid_an_ordinary_user_keeps_layers_and_is_told_why() -> None:
    def work(store: Path) -> None:
        with ImageStorage(store) as storage:
            name = REPOSITORY.with_tag("1").reference
            storage.refs.write(name, IMAGES[UNUSED].digest)
            entry = storage.refs.read(name)
            assert entry is not None
            [why] = reasons(remove_images(storage, {name: entry}))
            assert why.startswith("maybe a mount: /proc hides the processes of others (hidepid=")
            assert reasons(collect_garbage(storage)) == {why}
            assert layers_of(store) == ALL
            assert reasons(collect_garbage(storage, force=True)) == set()
            assert layers_of(store) == set()

    as_plain_user(work, hidepid=True)


@pytest.mark.parametrize("shared", [False, True])
def test_an_ordinary_user_sees_what_the_mounts_of_others_use(shared: bool) -> None:
    def work(store: Path) -> None:
        with ImageStorage(store) as storage:
            [why] = reasons(collect_garbage(storage, force=True))
            assert why.startswith(f"mount {store.parent}/mnt")
            assert layers_of(store) == IN_USE

    as_plain_user(work, shared=shared)


def test_an_overlay_whose_lower_directories_may_not_be_looked_at_may_use_a_shared_store() -> None:
    def work(store: Path) -> None:
        with ImageStorage(store) as storage:
            [why] = reasons(collect_garbage(storage))
            assert re.fullmatch(r"maybe a mount: \d+ processes or overlays of others may not be .*", why)
            assert layers_of(store) == ALL
            assert reasons(collect_garbage(storage, force=True)) == set()
            assert layers_of(store) == set()

    as_plain_user(work, shared=True, linked=True)
