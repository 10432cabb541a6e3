"""Scratches of overlays, and who may ask the kernel about them: never while one is being mounted."""

import os
from pathlib import Path
from threading import Event, Thread

import pytest

from layerfs.errors import StoreError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import Overlay, is_in_use, mount_overlay
from layerfs.store import ImageStorage, roots, scratch
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import Locks
from layerfs.store.roots import OverlayRoot
from layerfs.store.scratch import Scratch, all_scratches, make_scratch

pytestmark = pytest.mark.needs_root


def made(storage: ImageStorage, number: int = 0) -> Scratch:
    """Make a scratch as who is about to mount does."""
    lower = storage.images_dir.parent / "lower"
    lower.mkdir(exist_ok=True)
    one = make_scratch(storage.images_dir, b"/target/%d" % number, lower)
    one.note([str(lower)])
    return one


def test_one_that_is_being_mounted_is_in_use_and_the_kernel_is_not_asked(
    storage: ImageStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def asking(upper: bytes, aside: tuple[bytes, bytes] | None = None) -> bool:
        path = Path(os.fsdecode(upper)).parent
        assert Locks(StoreLayout(storage.images_dir).lock).is_held(path), "whoever mounts would not know"
        asked.append(upper)
        return is_in_use(upper, aside)

    monkeypatch.setattr(scratch, "is_in_use", asking)
    mounting = made(storage)
    (seen,) = all_scratches(storage.images_dir)

    assert mounting.path.name.encode() in storage.usage().scratches
    assert seen.user() == "being mounted"
    with pytest.raises(StoreError, match="being mounted"):
        seen.remove()
    assert asked == []

    mounting.lock.release()
    assert mounting.path.name.encode() not in storage.usage().scratches
    assert seen.user() == ""
    assert seen.remove()
    assert len(asked) == 3
    assert not seen.lock.held


def test_who_removes_waits_for_who_asks(storage: ImageStorage) -> None:
    one = made(storage)
    one.lock.release()
    asking = Locks(StoreLayout(storage.images_dir).lock).take(one.path)
    begun = Event()

    def end() -> None:
        begun.wait()
        asking.release()

    thread = Thread(target=end)
    thread.start()
    (seen,) = all_scratches(storage.images_dir)
    begun.set()
    assert seen.remove()
    thread.join()


def test_nobody_asks_about_an_upper_directory_that_another_overlay_is_being_mounted_with(
    storage: ImageStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of a user, and the scratch of an earlier overlay of theirs is still there."""
    upper, work, target = (tmp_path / name for name in ("upper", "work", "target"))
    for path in (upper, work, target):
        path.mkdir()
    earlier, one = made(storage, 0), made(storage, 1)
    earlier.has_upper_at(upper)
    earlier.lock.release()
    monkeypatch.setattr(scratch, "_ASKED_SECONDS", 0.0)

    def mount(overlay: Overlay, there: Mountpoint) -> None:
        assert earlier.is_used_unseen(), "nobody knows"
        assert is_in_use(bytes(upper)) is False
        mount_overlay(overlay, there)

    monkeypatch.setattr(roots, "mount_overlay", mount)
    lowers = [str(tmp_path / "lower")]
    root = OverlayRoot(lowers=lowers, upper=upper, work=work, options=frozenset(), gone="gone")
    with Mountpoint.open(target) as there:
        root.mount_lazily(there, one)
        there.unmount()
    assert not earlier.is_used_unseen()


@pytest.mark.long
def test_every_overlay_has_the_mark_of_the_kernel_while_others_ask(
    storage: ImageStorage, tmp_path: Path
) -> None:
    asking, over = Event(), Event()

    def ask() -> None:
        while not over.is_set():
            asking.wait(0.01)
            for one in all_scratches(storage.images_dir) if asking.is_set() else ():
                one.is_used_unseen()

    target = tmp_path / "target"
    target.mkdir()
    thread = Thread(target=ask)
    thread.start()
    try:
        for number in range(300):
            asking.set()
            one = made(storage, number)
            lowers = [os.fsencode(tmp_path / "lower")]
            overlay = Overlay(lowers, bytes(one.upper), bytes(one.work), options=frozenset({"ro"}))
            with Mountpoint.open(target) as there:
                mount_overlay(overlay, there)
                asking.clear()
                one.lock.release()
                one.lock.acquire(60)  # who asks has the mark, too
                try:
                    assert is_in_use(bytes(one.upper))
                finally:
                    there.unmount()
            one.remove()
    finally:
        over.set()
        thread.join()
