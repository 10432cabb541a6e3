import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, EIO, ENOMEM, ENOSPC, EROFS
from pathlib import Path
from typing import Any

import pytest
import xattr

from layerfs.errors import NotInStore, StoreDamaged, StoreError, StoreMismatch, StoreReadOnly
from layerfs.oci import Digest, Repository
from layerfs.store import Capabilities, ImageStorage
from tests.conftest import skip_for_lack_of
from tests.store.helpers import as_user, blob_of, download, leftovers, publish, shared_place
from tests.support import images

CONTENT, DIGEST = blob_of(b"one layer")
IMAGE = images.image(images.layer(images.file("a")))


def test_opening_makes_the_directories(tmp_path: Path) -> None:
    path = tmp_path / "not/there/yet"
    ImageStorage(path)
    for name in ("manifests", "configs", "layers", "extracted", "covers", "refs", "local"):
        assert (path / name).is_dir()
    for name in ("extracted", "covers"):  # setuid programs are kept from other users
        assert (path / name).stat().st_mode & 0o077 == 0


def test_opening_again_changes_nothing(storage: ImageStorage, store: Path) -> None:
    publish(storage, CONTENT)
    before = sorted((d, sorted(n), sorted(f)) for d, n, f in os.walk(store))
    again = ImageStorage(str(store))
    assert sorted((d, sorted(n), sorted(f)) for d, n, f in os.walk(store)) == before
    assert again.images_dir == store
    assert again.open_layer(DIGEST) is not None
    assert str(store) in repr(again)


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = ImageStorage("store")
    monkeypatch.chdir("/")
    assert storage.images_dir == tmp_path / "store"
    assert publish(storage, CONTENT).path.is_dir()


def test_opening_reads_nothing_that_grows_with_the_store(storage: ImageStorage, store: Path) -> None:
    """The number of system calls is the same with and without content; strace counts them."""
    if shutil.which("strace") is None:
        skip_for_lack_of("strace")
    before = _count_opening(store)
    for number in range(300):
        name = Digest.of(bytes([number % 256, number // 256])).name
        (store / "layers" / f"{name}.tar.gz").write_bytes(b"")
        (store / "extracted" / name).mkdir()
        (store / "extracted" / f"{name}.json").write_bytes(b"{}")
        (store / "manifests" / f"{name}.json").write_bytes(b"{}")
        storage.refs.write(Repository.of("r.io", f"a{number % 7}").with_tag(str(number)), DIGEST)
    assert _count_opening(store) == before


def _count_opening(store: Path) -> list[str]:
    """Return the system calls that name the store, without the random parts of names."""
    log = str(store.with_name("strace.log"))
    script = f"from layerfs.store import ImageStorage; ImageStorage({str(store)!r})"
    command = ["strace", "-f", "-qq", "-e", "signal=none", "-o", log, sys.executable, "-c", script]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    lines = Path(log).read_text(errors="replace").splitlines()
    opened = [line.split()[1].split("(")[0] for line in lines if str(store) in line]
    listed = [line for line in lines if "getdents" in line]
    return [*opened, f"{len(listed)} getdents"]


# Owners


def test_the_owner_is_recorded_in_the_store(storage: ImageStorage, store: Path) -> None:
    recorded = json.loads((store / "owner.json").read_text())
    assert recorded["owner"] == storage.capabilities.owner
    assert recorded["uid"] == os.geteuid()


@pytest.mark.parametrize(
    "changes",
    [{"owner": "user", "uid": 1234}, {"owner": "namespace"}, {"version": 2}],
    ids=["an ordinary user", "root of a namespace", "another version"],
)
@pytest.mark.needs_root
def test_another_kind_of_owner_is_refused(
    storage: ImageStorage, store: Path, changes: dict[str, object]
) -> None:
    path = store / "owner.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(StoreMismatch, match=str(store)):
        ImageStorage(store)


@pytest.mark.parametrize(
    ("version", "words"),
    [(0, "an older layerfs"), (2, "a newer layerfs.*upgrade")],
    ids=["older", "newer"],
)
@pytest.mark.parametrize("owner", [{"kind": "of a later time"}, "root"], ids=["in another form", "as ours"])
def test_a_store_of_another_version_is_refused_and_left_alone(
    storage: ImageStorage, store: Path, version: int, words: str, owner: object
) -> None:
    path = store / "owner.json"
    written = json.dumps(json.loads(path.read_text()) | {"version": version, "owner": owner})
    path.write_text(written)

    with pytest.raises(StoreMismatch, match=rf"{words}.*use another --store"):
        ImageStorage(store)

    assert path.read_text() == written


@pytest.mark.needs_root
def test_an_ordinary_user_has_a_store_of_his_own_and_no_other() -> None:
    with shared_place() as place:

        def use() -> None:
            mine = ImageStorage(place / "theirs")
            assert mine.capabilities == Capabilities("user", True, "user.overlay.opaque")
            publish(mine, CONTENT, fill=_closed_directories)
            mine.publish_cover([DIGEST])
            assert mine.make_durable() == 2
            assert mine.remove_layer(DIGEST)
            assert mine.sweep().trees == 1
            with pytest.raises(StoreMismatch):
                ImageStorage(place / "ours")

        ImageStorage(place / "ours")
        as_user(1234, use)
        with pytest.raises(StoreMismatch, match=r"theirs: belongs to user 1234 .expected root."):
            ImageStorage(place / "theirs")


@pytest.mark.needs_root
def test_root_of_a_namespace_has_a_store_of_its_own_and_no_other() -> None:
    script = (
        "import sys; from layerfs.store import ImageStorage; print(ImageStorage(sys.argv[1]).capabilities)"
    )

    def run(store: Path) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "-Ur", sys.executable, "-c", script, str(store)]
        return subprocess.run(command, capture_output=True, text=True)

    with shared_place() as place:
        made = run(place / "theirs")
        assert made.stdout.strip() == repr(Capabilities("namespace", True, "user.overlay.opaque")), (
            made.stderr
        )
        with pytest.raises(StoreMismatch):
            ImageStorage(place / "theirs")
        ImageStorage(place / "ours")
        assert "StoreMismatch" in run(place / "ours").stderr


def _closed_directories(tree: Path) -> None:
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b").chmod(0)
    (tree / "a").chmod(0o555)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"owner": "emperor", "uid": 0}', b"\xff"])
def test_a_damaged_owner_file_is_named(storage: ImageStorage, store: Path, content: bytes) -> None:
    (store / "owner.json").write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"owner\.json"):
        ImageStorage(store)


@pytest.mark.allow_warnings
def test_a_store_marked_without_whiteouts_recovers(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "mknod", refuse)
        poor = ImageStorage(store)
        assert not poor.capabilities.whiteout_devices
        publish(poor, CONTENT)
        poor.publish_cover([DIGEST])
    opened = ImageStorage(store)
    # Until somebody wants the overlay form, what was extracted without it serves.
    assert opened.open_layer(DIGEST) is not None
    assert opened.cover([DIGEST]) is not None
    assert opened.capabilities.whiteout_devices
    assert json.loads((store / "owner.json").read_text())["whiteout_devices"]
    again = ImageStorage(store)
    assert again.open_layer(DIGEST) is None
    assert again.cover([DIGEST]) is None
    assert publish(again, CONTENT).record.native


@pytest.mark.parametrize("number", [ENOSPC, EIO, EDQUOT, EROFS, ENOMEM], ids=os.strerror)
@pytest.mark.parametrize("call", ["mknod", "setxattr"])
def test_full_disk_forgets_overlays(
    store: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """An error of the moment is no answer; one of a new store is an error."""

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    module = os if call == "mknod" else xattr
    with monkeypatch.context() as patched:
        patched.setattr(module, call, fail)
        with pytest.raises(StoreError, match="cannot try what it can carry"):
            ImageStorage(store)
    assert ImageStorage(store).capabilities.whiteout_devices
    with monkeypatch.context() as patched:
        patched.setattr(module, call, fail)
        assert ImageStorage(store).capabilities.whiteout_devices
    assert json.loads((store / "owner.json").read_text())["whiteout_devices"]
    assert leftovers(store) == []


# Read-only stores


def _remount_read_only(path: Path) -> None:
    subprocess.run(["mount", "--bind", path, path], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)


@contextmanager
def read_only(path: Path, make: Callable[[Path], None] = _remount_read_only) -> Iterator[ImageStorage]:
    make(path)
    try:
        yield ImageStorage(path)
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.needs_root
def test_a_read_only_store_serves_what_it_has(storage: ImageStorage, store: Path) -> None:
    layer = publish(storage, CONTENT)
    cover = storage.publish_cover([DIGEST])
    storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    storage.save_config(IMAGE.config, IMAGE.config_digest)
    storage.refs.write(Repository.parse("a").with_tag("1"), IMAGE.digest)
    with read_only(store) as opened:
        assert opened.readonly
        assert opened.capabilities == storage.capabilities
        found = opened.open_layer(DIGEST)
        assert found is not None
        assert found.path == layer.path
        assert opened.cover([DIGEST]) == cover
        assert opened.open_blob(DIGEST) == storage.open_blob(DIGEST)
        assert opened.load_manifest(IMAGE.digest).raw == IMAGE.manifest
        assert opened.load_config(IMAGE.config_digest).raw == IMAGE.config
        opened.save_manifest(IMAGE.manifest, IMAGE.digest)
        assert opened.verify_layer(DIGEST)
        entry = opened.refs.read(Repository.parse("a").with_tag("1"))
        assert entry is not None
        assert [str(reference) for reference, _ in opened.refs.all()] == ["docker.io/library/a:1"]
        assert opened.extract_layer(DIGEST, "/nowhere") == found
        assert opened.make_durable() == 0


@pytest.mark.needs_root
def test_a_read_only_store_says_so_when_something_is_missing(
    storage: ImageStorage, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "tar").write_bytes(CONTENT)
    publish(storage, b"second")
    second = Digest.of(b"second")
    repository = Repository.parse("a")
    with read_only(store) as opened:
        assert opened.open_layer(DIGEST) is None
        with pytest.raises(NotInStore):
            opened.load_manifest(IMAGE.digest)
        operations: list[Any] = [
            lambda: opened.stage_layer_download(DIGEST, 1),
            lambda: opened.stage_config_download(DIGEST),
            lambda: opened.stage_tree(DIGEST),
            lambda: opened.extract_layer(DIGEST, tmp_path / "tar"),
            lambda: opened.save_manifest(IMAGE.manifest, IMAGE.digest),
            lambda: opened.refs.write(repository.with_tag("1"), DIGEST),
            lambda: opened.discard_layer(second),
            lambda: opened.remove_layer(second),
            lambda: opened.publish_cover([second]),
            opened.sweep,
            lambda: opened.lock(DIGEST).try_acquire(),
        ]
        for operation in operations:
            with pytest.raises(StoreReadOnly):
                operation()


def test_a_place_where_nothing_can_be_made_is_an_honest_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Exception, match="cannot make the store") as caught:
        ImageStorage(tmp_path / "file/store")
    assert type(caught.value).__module__ == "layerfs.errors"


# Files that others own or replaced


@pytest.mark.needs_root
@pytest.mark.allow_warnings
def test_files_that_another_user_changed_are_noticed_not_crashed_on(storage: ImageStorage) -> None:
    publish(storage, CONTENT)
    blob = download(storage, CONTENT).path
    blob.write_bytes(b"theirs")
    os.chown(blob, 1234, 1234)
    record = storage.layer_extracted_path(DIGEST).with_suffix(".json")
    record.write_bytes(b"theirs")
    os.chown(record, 1234, 1234)
    opened = ImageStorage(storage.images_dir)
    assert not opened.verify_layer(DIGEST)
    assert opened.open_layer(DIGEST) is None
