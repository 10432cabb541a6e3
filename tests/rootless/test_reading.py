"""Everything that only reads works on a store that may only be read: complete layers need no lock."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerfs.store import ImageStorage
from tests.overlay.scene import command, snapshot
from tests.rootless.household import STRANGER, UID, Household, Room
from tests.support import canary, images, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

BUILT = images.image(
    images.layer(
        images.directory("."), images.file("d/old", b"old"), images.file("gone"), images.file("f", b"read")
    ),
    images.layer(images.opaque("d"), images.file("d/new", b"new", mtime=86400), images.whiteout("gone")),
)

VERBS = (
    "tree {}", "tree --json {}", "export {}", "lowerdir {}", "history {}", "inspect {}",
    "inspect --runtime {}",
)  # fmt: skip
"""Those that may fetch; what they say is what the owner is told."""
LOOKING = (
    "images", "images --json", "images -q", "df", "df --verbose", "df --json", "verify --all --quick",
)  # fmt: skip


@contextlib.contextmanager
def read_only(store: Path) -> Iterator[None]:
    """Let nobody write to *store* for a block, root neither."""
    subprocess.run(["mount", "--bind", store, store], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        yield
    finally:
        mounts.clear(store)


def said(store: Path, name: str, offline: str) -> dict[str, str]:
    """Return what each verb prints."""
    found = {}
    for line in (*VERBS, *LOOKING):
        more = [offline] if offline and line in VERBS else []
        filled = line.format(name).split()
        if filled[0] == "export":
            filled += ["-o", str(store.with_name("exported.tar"))]
        printed = command(filled[0], "--store", store, *more, *filled[1:]).stdout
        found[line] = re.sub(r'"in_use": \[[^]]*\]', "", printed)  # who uses it changes meanwhile
    return found | {"exported": str(store.with_name("exported.tar").read_bytes())}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "target"
    path.mkdir()
    yield path
    mounts.clear(path)


@pytest.mark.parametrize("offline", ["", "--offline"])
def test_root_reads_a_read_only_bind_mount(
    registry: Registry, tmp_path: Path, target: Path, offline: str
) -> None:
    name = str(registry.push("rootless/reading", "1", BUILT))
    store = tmp_path / "store"
    command("lowerdir", "--for", "fuse-overlayfs", "--store", store, name)
    more = [offline] if offline else []
    command("overlay", "--store", store, name, target)
    expected = said(store, name, offline), snapshot(target)
    command("overlay", "--store", store, "--umount", target)

    with read_only(store):
        found = said(store, name, offline)
        command("overlay", "--store", store, *more, name, target)
        merged = snapshot(target)
        command("overlay", "--store", store, "--umount", target)

    assert found == expected[0]
    canary.assert_same(expected[1], merged)


@dataclass(frozen=True)
class Shared:
    """A store of the user that another one may read."""

    store: Path
    name: str
    owner: Room
    other: Room


@pytest.fixture
def shared(registry: Registry, household: Household) -> Iterator[Shared]:
    store = household.place("shared")
    name = str(registry.push("rootless/reading", "1", BUILT))
    household.home.chmod(0o711)
    household.room().layerfs("pull", "--share-store", "--store", store, name)
    yield Shared(store, name, household.room(), household.room(STRANGER))
    household.home.chmod(0o700)


@pytest.mark.parametrize("offline", ["", "--offline"])
def test_another_user_reads_a_shared_store(shared: Shared, offline: str) -> None:
    believing = ("--store", str(shared.store), "--store-owner", str(UID), *([offline] if offline else []))
    for line in VERBS:
        filled = line.format(shared.name).split()
        theirs = shared.other.layerfs(filled[0], *believing, *filled[1:])
        assert theirs.stdout == shared.owner.layerfs(filled[0], "--store", shared.store, *filled[1:]).stdout


def test_another_user_looks_at_a_shared_store(shared: Shared) -> None:
    believing = ("--store", str(shared.store), "--store-owner", str(UID))
    # A cache of a local source is closed, as its images may be private.
    shared.owner.run("sh", "-c", f"mkdir -m 700 -p {shared.store}/local/0123abcd-0123abcd/refs")
    for words in map(str.split, LOOKING):
        theirs = shared.other.layerfs(words[0], *believing, *words[1:])
        assert theirs.stdout
        if words[0] == "images":
            assert theirs.stdout == shared.owner.layerfs(words[0], "--store", shared.store, *words[1:]).stdout


def test_verify_of_a_read_only_store_says_what_it_could_not_compare(
    registry: Registry, tmp_path: Path
) -> None:
    name = str(registry.push("rootless/reading", "1", BUILT))
    store = tmp_path / "store"
    command("pull", "--store", store, name)
    blob = ImageStorage(store).layer_tarball_path(BUILT.layers[0].digest)
    with read_only(store):
        whole = command("verify", "--all", "--store", store)
    blob.write_bytes(images.flip_byte(blob.read_bytes()))
    with read_only(store):
        damaged = command("verify", "--all", "--repair", "--offline", "--store", store, check=False)

    assert whole.stdout.count("the store may only be read") == 3
    assert whole.stdout.endswith("4 right, 0 repaired, 3 unchecked, 0 wrong\n")
    assert damaged.returncode == 6
    assert f"wrong blob {BUILT.layers[0].digest}: the blob hashes to" in damaged.stdout


def test_what_a_store_that_may_only_be_read_lacks_is_named(registry: Registry, tmp_path: Path) -> None:
    name = str(registry.push("rootless/reading", "1", BUILT))
    store = tmp_path / "store"
    command("pull", "--store", store, name)
    with ImageStorage(store) as storage:
        storage.discard_layer(BUILT.layers[1].digest)
        storage.discard_cover([layer.digest for layer in BUILT.layers])

    with read_only(store):
        done = command("tree", "--store", store, name, check=False)

    assert done.returncode == 1
    assert f"{BUILT.layers[1].digest}: not in {store}, which may only be read" in done.stderr
    assert "layerfs pull of the image by the store's owner completes it" in done.stderr
