"""Whose store is believed, and who gets into one: neighbours on this machine are hostile."""

import fcntl
import json
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerfs.errors import StoreError, StoreMismatch
from layerfs.oci import Repository
from layerfs.store import ImageStorage, locks
from tests.store.helpers import as_user, blob_of, child, download, publish, shared_place
from tests.support import images, mounts

pytestmark = pytest.mark.needs_root

CONTENT, DIGEST = blob_of(b"one layer")
IMAGE = images.image(images.layer(images.file("a")))
TAG = Repository.parse("a/b").with_tag("1")
NEIGHBOUR = 65534
ACCOUNT = 1234


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory like /tmp: everybody may make things in it."""
    with shared_place() as path:
        yield path


def filled(path: Path, *, shared: bool | None = None) -> ImageStorage:
    """Make a store with one of everything in it."""
    storage = ImageStorage(path, shared=shared)
    publish(storage, CONTENT)
    storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    storage.save_config(IMAGE.config, IMAGE.config_digest)
    storage.refs.write(TAG, IMAGE.digest)
    return storage


def everything(path: Path) -> list[Path]:
    """Return all that is below *path*, itself included."""
    return [path, *sorted(path.rglob("*"))]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def lock_whole(path: Path) -> None:
    """Hold a read lock of a whole file for as long as the process lives."""
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))


# Nobody else gets in


def test_store_lock_by_any_user(place: Path) -> None:
    filled(place / "store")

    def attack() -> None:
        with pytest.raises(PermissionError):
            lock_whole(place / "store/lock")

    as_user(NEIGHBOUR, attack)
    (place / "store").chmod(0o755)  # whatever the directory lets pass
    as_user(NEIGHBOUR, attack)


def test_a_lock_that_is_never_given_back_is_an_error_soon(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older layerfs had let others open the file; such a descriptor may live on."""
    storage = filled(place / "store")
    monkeypatch.setattr(locks, "MOMENTS_SECONDS", 0.2)
    monkeypatch.setattr(locks, "WORK_SECONDS", 0.2)
    with child(lambda: lock_whole(place / "store/lock")):
        opened = ImageStorage(place / "store")
        assert [known.tag for known, _ in opened.refs.all()] == [TAG]
        assert opened.open_layer(DIGEST) is not None
        assert opened.refs.remove(TAG)
        with pytest.raises(StoreError, match=r"held by another process for .*; fuser -v .*/store/lock"):
            storage.discard_layer(DIGEST)
        with pytest.raises(StoreError, match="held by another process"), storage.lock(DIGEST):
            pass
        with pytest.raises(StoreError, match="another process has locked this name"):
            storage.stage_tree(DIGEST)
    assert storage.discard_layer(DIGEST)


def test_private_blobs_readable(place: Path) -> None:
    store = filled(place / "store").images_dir
    found = everything(store)

    def attack() -> None:
        for path in found[1:]:
            with pytest.raises(PermissionError):
                path.stat()
        with pytest.raises(PermissionError):
            os.listdir(store)

    as_user(NEIGHBOUR, attack)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_umask_store(place: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = filled(place / "new/store").images_dir
    finally:
        os.umask(before)

    assert mode(place / "new") == 0o755, "what is above a store is made as the umask says"
    assert mode(store) == 0o700
    assert mode(store / "lock") == 0o600
    assert {mode(path) for path in store.iterdir() if path.is_dir()} == {0o700}
    layer = store / "extracted" / DIGEST.name
    ours = [path for path in everything(place / "new") if path != layer and layer not in path.parents]
    assert not [path for path in ours if mode(path) & 0o022]
    assert ImageStorage(store).open_layer(DIGEST) is not None


def test_an_older_store_is_closed_and_keeps_working(place: Path) -> None:
    store = filled(place / "store").images_dir
    for path in (store, *(each for each in store.iterdir() if each.is_dir())):
        path.chmod(0o755)
    (store / "lock").chmod(0o644)

    opened = ImageStorage(store)

    assert {mode(path) for path in (store, *store.iterdir()) if path.is_dir()} == {0o700}
    assert mode(store / "lock") == 0o600
    assert opened.open_layer(DIGEST) is not None
    assert download(opened, b"another").size


@pytest.mark.allow_warnings
def test_an_older_store_that_others_could_write_to_is_closed_and_reported(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = filled(place / "store").images_dir
    store.chmod(0o777)

    assert ImageStorage(store).open_layer(DIGEST) is not None
    assert mode(store) == 0o700
    assert "others could write to it, mode 0777; closed to them now" in caplog.text


@pytest.mark.parametrize("found", [0o755, 0o700])
def test_a_directory_with_other_things_in_it_keeps_its_mode(place: Path, found: int) -> None:
    home = place / "home"
    home.mkdir()
    home.chmod(found)
    (home / "diary").touch()

    ImageStorage(home)
    ImageStorage(home)

    assert mode(home) == found
    assert {mode(path) for path in home.iterdir() if path.is_dir()} == {0o700}


@pytest.mark.allow_warnings
def test_a_new_tmpfs_is_closed(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "new") as path:
        assert mode(path) == 0o1777
        ImageStorage(path)
        assert mode(path) == 0o700


def test_a_part_on_another_disk_is_led_to_by_a_link(place: Path, tmp_path: Path) -> None:
    store = place / "store"
    store.mkdir()
    (tmp_path / "layers").mkdir(0o755)
    (store / "layers").symlink_to(tmp_path / "layers")

    download(ImageStorage(store), CONTENT)

    assert ImageStorage(store).has_layer(DIGEST)
    assert mode(tmp_path / "layers") == 0o700


def test_an_inherited_group_stays(place: Path) -> None:
    """Directories of projects on a cluster give their group to what is made in them; quotas count by it."""
    project = place / "project"
    project.mkdir()
    os.chown(project, 0, ACCOUNT)
    project.chmod(0o2755)

    store = filled(project / "store").images_dir
    ImageStorage(store, shared=True)
    ImageStorage(store, shared=False)

    parts = [store, *(each for each in store.iterdir() if each.is_dir())]
    assert {mode(path) for path in parts} == {0o2700}
    assert {path.stat().st_gid for path in everything(store)} == {ACCOUNT}


# Nobody else is believed


def plant(store: Path) -> None:
    """Make a store that claims to be root's, as uid 65534."""

    def work() -> None:
        publish(ImageStorage(store), CONTENT)
        owner = store / "owner.json"
        owner.write_text(json.dumps(json.loads(owner.read_text()) | {"owner": "root", "uid": 0}))
        for path in everything(store):
            path.chmod(0o777)

    as_user(NEIGHBOUR, work)


def whole(place: Path) -> Path:
    plant(place / "theirs")
    return place / "theirs"


def below_a_directory_of_theirs(place: Path) -> Path:
    (place / "theirs").mkdir()
    os.chown(place / "theirs", NEIGHBOUR, NEIGHBOUR)
    filled(place / "ours")
    os.rename(place / "ours", place / "theirs/store")
    return place / "theirs/store"


def below_a_directory_of_everybody(place: Path) -> Path:
    (place / "open").mkdir()
    filled(place / "open/store")
    (place / "open").chmod(0o777)
    return place / "open/store"


def behind_a_link_of_theirs(place: Path) -> Path:
    filled(place / "ours")
    as_user(NEIGHBOUR, lambda: os.symlink(place / "ours", place / "link"))
    return place / "link"


def a_part(name: str) -> Callable[[Path], Path]:
    """A directory that everybody could write to, and in which they were first to make *name*."""

    def make(place: Path) -> Path:
        plant(place / "theirs")
        store = place / "store"
        store.mkdir()
        os.rename(place / "theirs" / name, store / name)
        return store

    return make


def a_part_that_everybody_may_write(place: Path) -> Path:
    store = filled(place / "store").images_dir
    (store / "extracted").chmod(0o777)
    return store


def a_directory_for_all_with_other_things(place: Path) -> Path:
    store = filled(place / "store").images_dir
    (store / "other").touch()
    store.chmod(0o777)
    return store


def a_part_led_to_by_a_link(place: Path) -> Path:
    plant(place / "theirs")
    store = place / "store"
    store.mkdir()
    (store / "layers").symlink_to(place / "theirs/layers")
    return store


def a_sticky_directory(place: Path) -> Path:
    (place / "lock").touch()
    return place


PLANTED = [
    pytest.param(whole, "belongs to user 65534", id="all of it"),
    pytest.param(below_a_directory_of_theirs, "on the way to it belongs to user 65534", id="its parent"),
    pytest.param(below_a_directory_of_everybody, "anybody can write to", id="everybody's parent"),
    pytest.param(behind_a_link_of_theirs, "link on the way to it belongs to user 65534", id="a link"),
    *(
        pytest.param(a_part(name), f"store/{name}: belongs to user 65534", id=name)
        for name in ("extracted", "layers", "manifests", "refs", "local", "owner.json", "lock")
    ),
    pytest.param(a_part_that_everybody_may_write, "extracted: others can write to it", id="an open part"),
    pytest.param(a_directory_for_all_with_other_things, "others can write to it", id="open, not ours alone"),
    pytest.param(a_part_led_to_by_a_link, "store/layers: belongs to user 65534", id="behind a link of ours"),
    pytest.param(a_sticky_directory, "others can write to it, mode 1777", id="/tmp itself"),
]


@pytest.mark.parametrize(("make", "words"), PLANTED)
def test_planted_store(place: Path, make: Callable[[Path], Path], words: str) -> None:
    store = make(place)
    before = {(path, mode(path), path.lstat().st_uid) for path in everything(store)}

    with pytest.raises(StoreMismatch, match=words) as caught:
        ImageStorage(store)

    assert "expected" in str(caught.value)
    assert "/var/tmp/NAME" not in str(caught.value)
    assert before <= {(path, mode(path), path.lstat().st_uid) for path in everything(store)}


# A store for all is a decision


def test_a_shared_store_is_read_by_whoever_believes_its_maker(place: Path) -> None:
    store = place / "store"

    def share() -> None:
        os.umask(0o077)
        filled(store, shared=True).make_durable()
        ImageStorage(store)

    def read() -> None:
        with pytest.raises(StoreMismatch, match=f"belongs to user {ACCOUNT} .*--store-owner {ACCOUNT}"):
            ImageStorage(store)
        opened = ImageStorage(store, maker=ACCOUNT)
        assert opened.readonly
        layer = opened.open_layer(DIGEST)
        assert layer is not None
        assert opened.open_blob(DIGEST) is not None
        assert os.access(opened.layer_tarball_path(DIGEST), os.R_OK)
        assert opened.load_manifest(IMAGE.digest).raw == IMAGE.manifest
        assert [known.tag for known, _ in opened.refs.all()] == [TAG]
        with pytest.raises(PermissionError):
            lock_whole(store / "lock")

    as_user(ACCOUNT, share)
    as_user(NEIGHBOUR, read)


def test_sharing_is_remembered_until_it_is_taken_back(place: Path) -> None:
    store = filled(place / "store", shared=True).images_dir
    parts = [store, *(each for each in store.iterdir() if each.is_dir())]

    ImageStorage(store)
    assert {mode(path) for path in parts} == {0o755}
    assert mode(store / "lock") == 0o600

    (store / "extracted").chmod(0o750)  # for a group
    ImageStorage(store, shared=True)
    assert mode(store / "extracted") == 0o750

    ImageStorage(store, shared=False)
    ImageStorage(store)
    assert {mode(path) for path in parts} == {0o700}
