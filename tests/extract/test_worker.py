"""Worker processes: what they have, how they end, and what becomes of their job then."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest

from layerfs.errors import BudgetExceeded, PathEscape, StoreError, WorkerDied
from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.layer.budgets import Budgets
from tests.extract.extracting import ROOT, Extract, digest_of, peak_memory
from tests.layer.headers import END, header
from tests.support.clients import runs, wait_until
from tests.support.images import Entry, file, tar

ARCHIVE = tar([file(f"f{n}", b"x" * 1000) for n in range(50)])


def _writer_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: bool(children.read_text()))
    (child,) = children.read_text().split()
    return int(child)


def _fds(pid: int) -> dict[int, str]:
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed since the listing
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def _wait_until_closed(pid: int, directory: Path) -> None:
    """Wait until a process has nothing open in *directory*: the answer may be there a moment before."""
    wait_until(lambda: not any(str(directory) in target for target in _fds(pid).values()))


def _wait_until_at_most(pid: int, number: int) -> None:
    wait_until(lambda: len(_fds(pid)) <= number)


def test_a_worker_is_warm_for_many_jobs(extract: Extract) -> None:
    with extract.pool.extractor() as extractor:
        pids = {extractor.pid, _writer_of(extractor.pid)}
        for _ in range(20):
            extractor.start(extract.job(ARCHIVE))
            assert extractor.result().entries == 50
        assert {extractor.pid, _writer_of(extractor.pid)} == pids


def test_a_failed_job_leaves_the_worker_warm_and_nothing_open(extract: Extract) -> None:
    with extract.pool.extractor() as extractor:
        writer = _writer_of(extractor.pid)
        wait_until(lambda: 0 not in _fds(writer))
        before: dict[int, int] = {}
        for bad in (
            ARCHIVE[:300],
            ARCHIVE[:1000],
            tar([file("d/e/f"), file("../x")]),
            tar([file("f"), file("f/g")]),
        ):
            extractor.start(extract.job(bad))
            with pytest.raises(Exception, match=r"."):
                extractor.result()
            for pid in (extractor.pid, writer):
                _wait_until_closed(pid, extract.directory)
                _wait_until_at_most(pid, before.setdefault(pid, len(_fds(pid))))
        extractor.start(extract.job(ARCHIVE))
        assert extractor.result().entries == 50


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("last", [file("good"), file("../evil")], ids=["good", "refused"])
def test_a_worker_remembers_nothing_of_the_jobs_before(
    pool: ExtractorPool, memory: Path, last: Entry
) -> None:
    extract = Extract(pool, memory)
    archive = tar([*(file("n" * 250 + "/.wh." + f"{n:0240}") for n in range(400)), last])
    sizes = []
    with extract.pool.extractor() as extractor:
        for _ in range(60):
            extractor.start(extract.job(archive))
            with suppress(PathEscape):
                extractor.result()
            sizes.append(_resident(extractor.pid) + _resident(_writer_of(extractor.pid)))

    assert sizes[-1] - sizes[10] < 5 << 20  # half of what the names of 50 jobs take


def test_what_waits_for_the_end_needs_little_memory_also_at_its_limit(
    pool: ExtractorPool, memory: Path
) -> None:
    extract = Extract(pool, memory)
    each = 160
    count = Budgets().max_record_bytes // (3 * each + len("d000000" + "d000000/x" + "d000000/x/.wh.m"))
    most = b"".join(header(b"d%06d/x/.wh.m" % n) for n in range(count))
    with closing(Extractor()) as extractor:
        extractor.start(extract.job(most + END))
        found = extractor.result()
        assert found.whiteouts == count
        assert found.implied == 2 * count + 1
        assert peak_memory(extractor) < 64 << 20

    with pytest.raises(BudgetExceeded, match="max_record_bytes"):
        extract(archive=most + header(b"d/x/.wh.m") + END)


def test_a_worker_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    with open("/etc/passwd", "rb") as secret:
        os.set_inheritable(secret.fileno(), True)
        extractor = Extractor()
    try:
        for pid in (extractor.pid, writer := _writer_of(extractor.pid)):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert {row.partition(b"=")[0] for row in environment.split(b"\0") if row} == {
                b"PATH", b"LC_ALL", b"PYTHONPATH",
            }  # fmt: skip
            assert "/etc/passwd" not in _fds(pid).values()
            assert os.getsid(pid) == extractor.pid
            assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
        wait_until(lambda: 0 not in _fds(writer))  # closed by the writer itself, once it runs
    finally:
        extractor.close()


def test_nothing_is_imported_that_an_extraction_does_not_need() -> None:
    code = "import layerfs.extract.worker, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"trio", "httpx", "pyfuse3", "click", "asyncio", "tarfile", "zstandard", "lzma"})


def _growing(extract: Extract, extractor: Extractor) -> None:
    """Start a job that waits for more."""
    extractor.start(extract.job(ARCHIVE[:1024], complete=False, size=len(ARCHIVE), digest=digest_of(ARCHIVE)))
    extractor.grown(1024)


@pytest.mark.parametrize("victim", ["worker", "writer"])
@pytest.mark.allow_warnings
def test_a_killed_process_fails_its_job_only(extract: Extract, victim: str) -> None:
    extractor = extract.pool.acquire()
    pid, writer = extractor.pid, _writer_of(extractor.pid)
    _growing(extract, extractor)

    killed = pid if victim == "worker" else writer
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not runs(killed))  # until then the process that writes the tree might still answer
    extractor.ended(1024)  # a dead one is told, too: that must not raise

    with pytest.raises(WorkerDied, match=str(pid)):
        extractor.result()
    extract.pool.release(extractor)
    wait_until(lambda: not runs(pid) and not runs(writer))
    assert extract(archive=ARCHIVE).extraction.entries == 50


def test_closing_ends_a_running_job_and_its_result_raises(extract: Extract) -> None:
    extractor = extract.pool.acquire()
    pid, writer = extractor.pid, _writer_of(extractor.pid)
    _growing(extract, extractor)
    raised: list[type] = []

    def wait() -> None:
        try:
            extractor.result()
        except WorkerDied as exc:
            raised.append(type(exc))

    waiting = threading.Thread(target=wait)
    waiting.start()
    extractor.close()
    waiting.join()
    extract.pool.release(extractor)

    assert raised == [WorkerDied]
    wait_until(lambda: not runs(pid) and not runs(writer))


def test_workers_end_when_their_daemon_is_killed(extract: Extract) -> None:
    job = extract.job(ARCHIVE[:1024], complete=False, size=len(ARCHIVE))
    code = f"""
import sys, time
from layerfs.extract.client import Extractor
from layerfs.extract.job import ExtractJob
extractor = Extractor()
extractor.start(ExtractJob(blob={job.blob!r}, target={job.target!r}, digest="sha256:" + "0" * 64,
                           size={job.size}, complete=False))
extractor.grown(1024)
print(extractor.pid, flush=True)
time.sleep(60)
"""
    daemon = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    writer = _writer_of(pid)

    daemon.kill()
    daemon.wait()
    daemon.stdout.close()

    wait_until(lambda: not runs(pid) and not runs(writer))


@pytest.mark.parametrize("name", [rb"back\slash\x41", "\u00fc\u4e2d".encode(), b"new\nline"])
def test_a_store_may_have_any_name(extract: Extract, tmp_path: Path, name: bytes) -> None:
    place = tmp_path / os.fsdecode(name)
    place.mkdir()
    job = extract.job(ARCHIVE)
    odd = msgspec.structs.replace(job, blob=str(place / "blob"), target=str(place / "tree"))
    os.rename(job.blob, odd.blob)
    os.rename(job.target, odd.target)

    assert extract.run(odd).extraction.entries == 50
    with pytest.raises(StoreError, match="not empty"):
        extract.run(odd)
    with pytest.raises(StoreError, match="expected the blob"):
        extract.run(msgspec.structs.replace(odd, blob=odd.blob + "x"))


def test_a_pool_lends_no_more_than_its_limit(extract: Extract) -> None:
    with ExtractorPool(limit=2) as pool:
        first, second = pool.acquire(), pool.acquire()
        got: list[Extractor] = []
        waiting = threading.Thread(target=lambda: got.append(pool.acquire()))
        waiting.start()
        waiting.join(0.1)
        assert got == []

        pool.release(first)
        waiting.join()

        assert got == [first]
        pool.release(second)
        pool.release(got[0])


def test_a_pool_ends_workers_that_idle(extract: Extract) -> None:
    with ExtractorPool(limit=2, idle_exit=0.2) as pool:
        with pool.extractor() as extractor:
            pid = extractor.pid
        wait_until(lambda: not runs(pid))
        with pool.extractor() as extractor:
            assert extractor.pid != pid


def test_a_pool_lends_an_idle_worker_again() -> None:
    with ExtractorPool(limit=2) as pool:
        with pool.extractor() as extractor:
            pid = extractor.pid
        with pool.extractor() as extractor:
            assert extractor.pid == pid


def test_a_closed_pool_ends_idle_workers_and_then_the_busy_ones() -> None:
    pool = ExtractorPool(limit=2)
    busy, idle = pool.acquire(), pool.acquire()
    pool.release(idle)

    pool.close()

    assert not runs(idle.pid)
    assert runs(busy.pid)
    pool.release(busy)
    assert not runs(busy.pid)
    with pytest.raises(WorkerDied):
        pool.acquire()


def test_a_pool_does_not_use_a_worker_again_that_died_idle() -> None:
    with ExtractorPool(limit=1) as pool:
        with pool.extractor() as extractor:
            pid = extractor.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not runs(pid))
        with pool.extractor() as extractor:
            assert extractor.pid != pid


def test_a_pool_tells_of_each_worker_that_has_died_and_of_no_other() -> None:
    deaths: list[None] = []
    with ExtractorPool(limit=2) as pool:
        pool.on_death = lambda: deaths.append(None)
        with pool.extractor() as idle:
            pass
        os.kill(idle.pid, signal.SIGKILL)
        wait_until(lambda: not runs(idle.pid))
        with pool.extractor() as lent:
            assert len(deaths) == 1
            os.kill(lent.pid, signal.SIGKILL)
            wait_until(lambda: not runs(lent.pid))
        assert len(deaths) == 2
        with pool.extractor() as closed:
            closed.close()
        with pool.extractor():
            pass
    assert len(deaths) == 2


def test_a_lent_worker_whose_borrower_fails_is_not_used_again() -> None:
    with ExtractorPool(limit=1) as pool:
        with pytest.raises(KeyError), pool.extractor() as extractor:
            raise KeyError
        assert not extractor.is_alive
