import os
import signal
import threading
import time
from pathlib import Path

from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.locks import Locks
from tests.store.helpers import child

DIGEST = Digest.of(b"layer")


def test_one_holder_at_a_time(storage: ImageStorage) -> None:
    first, second = storage.lock(DIGEST), storage.lock(str(DIGEST))
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


def test_digests_do_not_disturb_each_other(storage: ImageStorage) -> None:
    held = [storage.lock(Digest.of(bytes([number]))) for number in range(100)]
    assert all(lock.try_acquire() for lock in held)
    for lock in held:
        lock.release()


def test_work_publication_and_names_are_different_bytes(store: Path) -> None:
    locks = Locks(store.with_name("lock"))
    held = [locks.work(DIGEST), locks.publication(DIGEST), locks.name(Path(DIGEST.name))]
    assert all(lock.try_acquire() for lock in held)
    for lock in held:
        lock.release()


def test_release_is_harmless_when_nothing_is_held(storage: ImageStorage) -> None:
    lock = storage.lock(DIGEST)
    lock.release()
    with lock:
        assert lock.held
    lock.release()
    assert not lock.held


def test_a_block_waits_for_its_turn(storage: ImageStorage) -> None:
    holder = storage.lock(DIGEST)
    assert holder.try_acquire()
    order: list[str] = []

    def wait() -> None:
        with storage.lock(DIGEST):
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.15)
    order.append("first")
    holder.release()
    thread.join()
    assert order == ["first", "second"]


def test_threads_of_one_process_exclude_each_other(storage: ImageStorage) -> None:
    inside = 0
    worst = 0

    def work() -> None:
        nonlocal inside, worst
        for _ in range(3):
            with storage.lock(DIGEST):
                inside += 1
                worst = max(worst, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1


def test_a_killed_process_holds_nothing(storage: ImageStorage, store: Path) -> None:
    def hold() -> None:
        hold.lock = ImageStorage(store).lock(DIGEST)  # type: ignore[attr-defined]  # lives with the process
        assert hold.lock.try_acquire()  # type: ignore[attr-defined]  # as above

    with child(hold) as pid:
        assert not storage.lock(DIGEST).try_acquire()
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        lock = storage.lock(DIGEST)
        assert lock.try_acquire()
        lock.release()


def test_a_program_that_is_started_meanwhile_does_not_keep_the_lock(storage: ImageStorage) -> None:
    lock = storage.lock(DIGEST)
    assert lock.try_acquire()
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ)
    try:
        lock.release()
        assert lock.try_acquire()
        lock.release()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_lock_file_stays_empty_and_alone(storage: ImageStorage, store: Path) -> None:
    with storage.lock(DIGEST):
        assert (store / "lock").stat().st_size == 0
        assert not [name for name in os.listdir(store) if "lock" in name and name != "lock"]
