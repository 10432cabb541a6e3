"""A disk that takes more than it can keep: ext4 on an image whose own filesystem is full.

The kernel tells of it once, when it is too late, and forgets what it could not write.
"""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EDQUOT, EIO, ENODATA, ENOSPC, EROFS, ETIMEDOUT, EUCLEAN
from pathlib import Path

import pytest

from layerfs import host
from layerfs.errors import StoreError
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.usage import UsageCache
from tests.conftest import skip_for_lack_of
from tests.store.helpers import blob_of, download, extraction_of, publish
from tests.support import mounts
from tests.support.clients import wait_until

MIB = 1 << 20
CONTENT, DIGEST = blob_of(b"a layer")
OTHER, OTHER_DIGEST = blob_of(b"another layer")


@dataclass(frozen=True)
class Disk:
    """A filesystem, and the one that its image is on."""

    path: Path
    below: Path

    def lose_something(self) -> None:
        """Have something written that cannot be kept; whoever writes it is not told."""
        self._sync()
        status = os.statvfs(self.below)
        self._resize(status.f_frsize * (status.f_blocks - status.f_bfree) // MIB + 1)
        (self.path / "ballast").write_bytes(os.urandom(30 * MIB))

    def make_sound(self) -> None:
        """Have room again, and what could not be written yet written."""
        self._resize(200)
        self._sync()

    def _resize(self, megabytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={megabytes}M", self.below], check=True)

    def _sync(self) -> None:
        subprocess.run(["sync", "-f", self.path], check=False, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounts.tmpfs(tmp_path / "below", "size=200M") as below:
        image = below / "image"
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        try:
            subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True, capture_output=True)
        except FileNotFoundError:
            skip_for_lack_of("mkfs.ext4")
        with mounts.mounted("ext4", str(image), tmp_path / "disk", "loop") as path:
            yield Disk(path, below)


def is_known(store: Path, digest: Digest) -> bool:
    """Say whether a process that opens the store now believes in a layer."""
    return ImageStorage(store).open_layer(digest) is not None


@pytest.mark.needs_root
def test_what_the_disk_may_have_lost_is_never_called_durable(disk: Disk) -> None:
    storage = ImageStorage(disk.path / "store")
    publish(storage, CONTENT)
    disk.lose_something()
    with pytest.raises(StoreError, match="syncfs"):
        storage.make_durable()
    assert storage.make_durable() == 0
    assert storage.open_layer(DIGEST) is None
    assert not is_known(storage.images_dir, DIGEST)


@pytest.mark.needs_root
def test_what_is_durable_already_is_believed_all_the_same(disk: Disk) -> None:
    storage = ImageStorage(disk.path / "store")
    publish(storage, OTHER)
    assert storage.make_durable() == 1
    publish(storage, CONTENT)
    disk.lose_something()
    with pytest.raises(StoreError):
        storage.make_durable()
    assert is_known(storage.images_dir, OTHER_DIGEST)


@pytest.mark.needs_root
def test_what_the_disk_may_have_lost_can_be_made_again(disk: Disk) -> None:
    storage = ImageStorage(disk.path / "store")
    publish(storage, CONTENT)
    disk.lose_something()
    with pytest.raises(StoreError):
        storage.make_durable()
    disk.make_sound()
    publish(storage, CONTENT)
    assert storage.make_durable() == 1
    assert is_known(storage.images_dir, DIGEST)


@pytest.mark.needs_root
@pytest.mark.allow_warnings
def test_what_the_disk_may_have_lost_is_doubted_until_it_can_be_taken_away(disk: Disk) -> None:
    storage = ImageStorage(disk.path / "store")
    publish(storage, CONTENT)
    disk.lose_something()
    subprocess.run(["mount", "-o", "remount,bind,ro", disk.path], check=True)
    with pytest.raises(StoreError, match="syncfs"):
        storage.make_durable()
    subprocess.run(["mount", "-o", "remount,bind,rw", disk.path], check=True)
    assert storage.make_durable() == 0
    assert not is_known(storage.images_dir, DIGEST)


@contextmanager
def failing(number: int) -> Iterator[None]:
    """Let every syncfs of a block fail with one errno."""

    def fail(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(host, "syncfs", fail)
        yield


@pytest.mark.parametrize("number", [EIO, ENOSPC, EDQUOT, ENODATA, ETIMEDOUT, EUCLEAN, EROFS])
def test_whatever_the_disk_reports_is_a_loss(storage: ImageStorage, number: int) -> None:
    publish(storage, CONTENT)
    with failing(number), pytest.raises(StoreError, match=re.escape(os.strerror(number))):
        storage.make_durable()
    assert storage.make_durable() == 0
    assert storage.open_layer(DIGEST) is None


@pytest.mark.needs_root
def test_a_process_that_knew_the_layer_believes_in_it_no_more(disk: Disk) -> None:
    storage, other = ImageStorage(disk.path / "store"), ImageStorage(disk.path / "store")
    publish(storage, CONTENT)
    assert other.open_layer(DIGEST) is not None
    disk.lose_something()
    with pytest.raises(StoreError):
        storage.make_durable()
    assert other.open_layer(DIGEST) is None
    assert other.make_durable() == 0


@pytest.mark.allow_warnings
def test_a_layer_in_use_is_left_but_not_believed(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    used = True
    monkeypatch.setattr(UsageCache, "uses", lambda *_: used)
    storage = ImageStorage(store)
    layer = publish(storage, CONTENT)
    with failing(EIO), pytest.raises(StoreError, match="syncfs"):
        storage.make_durable()
    assert layer.path.is_dir()
    assert storage.open_layer(DIGEST) is None
    assert "in use by a mount" in caplog.text
    used = False
    publish(storage, CONTENT)
    assert storage.make_durable() == 1


def test_a_closed_store_holds_no_disk(storage: ImageStorage) -> None:
    publish(storage, CONTENT)
    storage.make_durable()
    storage.close()
    held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert str(storage.images_dir) not in held
    publish(storage, OTHER)
    assert storage.make_durable() == 1


def test_nothing_is_written_back_to_a_store_that_is_only_read(storage: ImageStorage) -> None:
    storage.readonly = True
    with storage.writing_back():
        assert "write-back" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.needs_root
def test_a_loss_that_others_were_told_of_is_told_here_too(disk: Disk) -> None:
    storage = ImageStorage(disk.path / "store")
    publish(storage, CONTENT)
    disk.lose_something()
    assert subprocess.run(["sync", "-f", disk.path], check=False, capture_output=True).returncode != 0
    with pytest.raises(StoreError, match="syncfs"):
        storage.make_durable()
    assert storage.open_layer(DIGEST) is None


@pytest.mark.needs_root
def test_a_tree_that_was_begun_before_a_loss_is_not_published_after_it(disk: Disk) -> None:
    storage = ImageStorage(disk.path / "store")
    blob = download(storage, OTHER)
    with storage.stage_tree(OTHER_DIGEST) as tree:
        publish(storage, CONTENT)
        disk.lose_something()
        with pytest.raises(StoreError):
            storage.make_durable()
        disk.make_sound()
        with pytest.raises(StoreError, match="lost something"):
            storage.publish(tree, blob, extraction_of(OTHER))
    assert storage.open_layer(OTHER_DIGEST) is None
    assert not is_known(storage.images_dir, OTHER_DIGEST)
    publish(storage, OTHER)
    assert storage.make_durable() == 1


@pytest.mark.needs_root
def test_writing_back_early_hides_no_loss(disk: Disk, synced: list[int]) -> None:
    storage = ImageStorage(disk.path / "store")
    with storage.writing_back():
        publish(storage, CONTENT)
        disk.lose_something()
        wait_until(lambda: bool(synced))
        with pytest.raises(StoreError, match="syncfs"):
            storage.make_durable()
    assert storage.open_layer(DIGEST) is None


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the descriptors of calls of syncfs."""
    calls: list[int] = []
    real = host.syncfs

    def syncfs(fd: int) -> None:
        try:
            real(fd)
        finally:
            calls.append(fd)

    monkeypatch.setattr(host, "syncfs", syncfs)
    return calls


def test_much_is_written_back_while_more_is_made(storage: ImageStorage, synced: list[int]) -> None:
    with storage.writing_back(), storage.stage_tree(DIGEST) as tree:
        for number in range(40):  # others may free as much on this disk meanwhile
            (tree.path / str(number)).write_bytes(bytes(20 * MIB))
            time.sleep(0.2)
            if synced:
                break
    before = len(synced)
    assert before > 0
    publish(storage, CONTENT)
    assert storage.make_durable() == 1
    assert len(synced) == before + 1, "the last word has one more syncfs"


def test_a_block_that_fails_ends_writing_back(storage: ImageStorage) -> None:
    with pytest.raises(ZeroDivisionError), storage.writing_back():
        raise ZeroDivisionError
    wait_until(lambda: "write-back" not in [thread.name for thread in threading.enumerate()])
