"""Objects: verified before they have a name, whole after anything that may happen to the machine."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs import host
from layerfs.errors import DigestMismatch, LayerfsError, SizeMismatch, StoreError, StoreFull
from layerfs.layer.toc import Content, Piece
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.newobjects import StoredObject
from layerfs.store.objects import LAST_USE_SECONDS, ObjectShelf
from tests.store.helpers import at_once, child, leftovers
from tests.support.mounts import tmpfs


def content_of(*parts: bytes, whole: bool = True) -> tuple[Content, list[bytes]]:
    """Return the content that consists of *parts*, of which one of zeros alone is a hole."""
    pieces, at = [], 0
    for part in parts:
        digest = "" if not part.strip(b"\0") else str(Digest.of(part))
        pieces.append(Piece(0, 0, 0, at, len(part), digest))
        at += len(part)
    return Content(str(Digest.of(b"".join(parts))) if whole else "", at, pieces), list(parts)


def put(shelf: ObjectShelf, *parts: bytes, whole: bool = True) -> StoredObject:
    """Store the content that consists of *parts*."""
    content, parts_ = content_of(*parts, whole=whole)
    with shelf.stage(content) as staged:
        for piece, part in zip(content.pieces, parts_, strict=True):
            if piece.digest:
                staged.write(piece, part)
        return staged.commit()


@pytest.fixture
def shelf(storage: ImageStorage) -> ObjectShelf:
    return storage.lazy.objects


@pytest.mark.parametrize("whole", [True, False])
def test_an_object_has_the_bytes_of_its_pieces(shelf: ObjectShelf, whole: bool) -> None:
    parts = (b"one", bytes(10_000), b"two")
    content, _ = content_of(*parts, whole=whole)
    assert shelf.find(content.id) is None

    made = put(shelf, *parts, whole=whole)

    assert made == shelf.find(content.id)
    assert made.path == shelf.directory / content.id[:2] / content.id[2:]
    assert made.path.read_bytes() == b"".join(parts)
    assert made.size == 10_006
    assert leftovers(shelf.directory) == []


def test_pieces_may_come_in_any_order_and_bit_by_bit(shelf: ObjectShelf) -> None:
    content, parts = content_of(b"first", b"second", b"third")
    with shelf.stage(content) as staged:
        for number in (2, 0, 1):
            writer = staged.piece(content.pieces[number])
            for at in range(len(parts[number])):
                writer.write(parts[number][at : at + 1])
            writer.finish()
        assert staged.commit().path.read_bytes() == b"firstsecondthird"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        pytest.param(b"abcd", SizeMismatch, id="one byte too many"),
        pytest.param(b"ab", SizeMismatch, id="one byte too few"),
        pytest.param(b"abd", DigestMismatch, id="other bytes"),
    ],
)
def test_a_piece_that_is_not_what_the_toc_says_is_refused(
    shelf: ObjectShelf, sent: bytes, error: type[LayerfsError]
) -> None:
    content, _ = content_of(b"abc", b"def")
    with shelf.stage(content) as staged:
        with pytest.raises(error):
            staged.write(content.pieces[0], sent)
        staged.write(content.pieces[1], b"def")
        with pytest.raises(SizeMismatch, match="1 of its pieces"):
            staged.commit()
    assert shelf.find(content.id) is None
    assert leftovers(shelf.directory) == []


@pytest.mark.parametrize("parts", [(b"abc", b"def"), (b"abc", bytes(5))], ids=["data", "a hole"])
def test_pieces_that_are_right_each_must_make_the_file_that_they_are_said_to(
    shelf: ObjectShelf, parts: tuple[bytes, ...]
) -> None:
    content, _ = content_of(*parts)
    content.digest = str(Digest.of(b"something else"))
    with shelf.stage(content) as staged:
        for piece, part in zip(content.pieces, parts, strict=True):
            if piece.digest:
                staged.write(piece, part)
        with pytest.raises(DigestMismatch):
            staged.commit()
    assert shelf.find(content.id) is None


def test_writers_of_one_object_do_not_disturb_each_other(shelf: ObjectShelf) -> None:
    made = at_once(8, lambda _: put(shelf, b"x" * 100_000))
    assert len(set(made)) == 1
    assert made[0].path.read_bytes() == b"x" * 100_000
    assert leftovers(shelf.directory) == []


def test_what_a_killed_process_wrote_is_no_object_and_is_swept(storage: ImageStorage) -> None:
    content, _ = content_of(b"abc", b"def")

    def work() -> None:
        staged = storage.lazy.objects.stage(content)
        staged.write(content.pieces[0], b"abc")

    with child(work):
        assert len(leftovers(storage.images_dir)) == 1
        storage.sweep()
        assert len(leftovers(storage.images_dir)) == 1
    assert storage.lazy.objects.find(content.id) is None
    storage.sweep()
    assert leftovers(storage.images_dir) == []


Boot = Callable[[], ImageStorage]


@pytest.fixture
def another_boot(store: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """Open the store as if the machine had been started anew."""

    def boot() -> ImageStorage:
        monkeypatch.setattr(host, "boot_id", lambda: "another")
        return ImageStorage(store)

    return boot


def test_a_reboot_voids_what_was_not_synced_and_keeps_the_rest(store: Path, another_boot: Boot) -> None:
    with ImageStorage(store) as storage:
        kept = put(storage.lazy.objects, b"kept")
        assert storage.make_durable() == 1
        assert storage.make_durable() == 0
        lost = put(storage.lazy.objects, b"lost")
        assert {kept, lost} == {storage.lazy.objects.find(one.id) for one in (kept, lost)}
    os.truncate(lost.path, 0)  # what a loss of power may leave

    with another_boot() as storage:
        shelf = storage.lazy.objects
        assert shelf.find(kept.id) == kept
        assert shelf.find(lost.id) is None
        assert put(shelf, b"lost") == lost
        assert lost.path.read_bytes() == b"lost"


def test_what_a_loss_of_power_left_is_removed_before_the_kernel_reads_it(
    store: Path, another_boot: Boot
) -> None:
    with ImageStorage(store) as storage:
        kept = put(storage.lazy.objects, b"kept")
        storage.make_durable()
        lost = put(storage.lazy.objects, b"lost")
        assert storage.lazy.objects.remove_void() == 0
        assert lost.path.exists()
    with another_boot() as storage:
        new = put(storage.lazy.objects, b"new")
        assert storage.sweep().void == 1
        assert (kept.path.exists(), lost.path.exists(), new.path.exists()) == (True, False, True)
        assert storage.lazy.objects.remove_void() == 0


def test_what_another_process_left_pending_is_made_durable_by_who_uses_it(
    store: Path, another_boot: Boot
) -> None:
    with ImageStorage(store) as first:
        made = put(first.lazy.objects, b"x")
    with ImageStorage(store) as second:
        assert second.lazy.objects.find(made.id) == made
        assert second.make_durable() == 1
    with another_boot() as storage:
        assert storage.lazy.objects.find(made.id) == made


def test_the_last_use_is_known_to_the_hour_and_changes_nothing_else(storage: ImageStorage) -> None:
    shelf = storage.lazy.objects
    made = put(shelf, b"x")
    before = os.stat(made.path)
    long_ago = before.st_mtime_ns - 2 * LAST_USE_SECONDS * 10**9
    os.utime(made.path, ns=(long_ago, long_ago))

    assert shelf.find(made.id) == made

    after = os.stat(made.path)
    assert abs(after.st_mtime - time.time()) < LAST_USE_SECONDS
    assert after.st_mtime_ns % 10**9 == before.st_mtime_ns % 10**9


def test_what_was_begun_before_the_disk_lost_something_goes(
    storage: ImageStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = storage.lazy.objects
    made = put(shelf, b"x")
    content, _ = content_of(b"y")
    with shelf.stage(content) as staged:
        staged.write(content.pieces[0], b"y")
        with monkeypatch.context() as patched:
            patched.setattr(host, "syncfs", lambda fd: (_ for _ in ()).throw(OSError(5, "lost")))
            with pytest.raises(StoreError):
                storage.make_durable()
        assert shelf.find(made.id) is None
        with pytest.raises(StoreError, match="lost something"):
            staged.commit()
    assert put(shelf, b"x").path.exists()
    assert storage.make_durable() == 1


@pytest.mark.needs_root
def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=1m") as place, ImageStorage(place / "store") as storage:
        shelf = storage.lazy.objects
        content, parts = content_of(os.urandom(2 << 20))
        with shelf.stage(content) as staged, pytest.raises(StoreFull):
            staged.write(content.pieces[0], parts[0])
        assert shelf.find(content.id) is None
        assert leftovers(storage.images_dir) == []
        assert put(shelf, b"x").path.read_bytes() == b"x"


def test_all_objects_are_listed_and_removed_by_their_ids(storage: ImageStorage) -> None:
    shelf = storage.lazy.objects
    made = {put(shelf, b"%d" % number) for number in range(20)}
    assert {id_ for id_, _ in shelf.all()} == {one.id for one in made}
    for one in made:
        assert shelf.discard(one.id)
        assert not shelf.discard(one.id)
    assert list(shelf.all()) == []
