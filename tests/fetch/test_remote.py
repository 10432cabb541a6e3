"""The downloader process: what it answers, what it has, how it ends, and what becomes of questions then."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from layerfs.errors import DigestMismatch, Offline, SizeMismatch, StoreError, Unreachable, WorkerDied
from layerfs.fetch.operations import FetchConfig, Receive, Resolve
from layerfs.fetch.remote import RemoteOrigin, open_remote
from layerfs.oci import Descriptor, Repository
from layerfs.registry import RegistrySettings
from layerfs.registry.traffic import Traffic
from layerfs.store import ImageStorage, StagedDownload
from tests.support.clients import children, runs, wait_until
from tests.support.faulty_registry import FaultyRegistry

CONTENT = bytes(range(256)) * 20_000
"""Five pieces of a MiB, and a part of one."""
PIECE = 1 << 20
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def put(faulty: FaultyRegistry, content: bytes = CONTENT) -> tuple[Repository, Descriptor]:
    return faulty.repository("a/b"), Descriptor("", faulty.push_blob(content), len(content))


def staged_in(store: Path, descriptor: Descriptor) -> StagedDownload:
    return ImageStorage(store).stage_layer_download(descriptor.digest, descriptor.size)


async def until_stalled(staged: StagedDownload) -> None:
    """Return once the first piece of what will stall is there."""
    with trio.fail_after(30):
        while staged.offset < PIECE:  # noqa: ASYNC110 - what arrives is told to a callback of the product
            await trio.sleep(0.01)


async def receive(
    remote: RemoteOrigin, repository: Repository, descriptor: Descriptor, staged: StagedDownload
) -> list[int]:
    """Let *remote* fill *staged*; return what it told on the way."""
    told: list[int] = []

    def arrived(received: int) -> None:
        told.append(received)
        staged.grown(received)

    question = Receive(repository, descriptor, staged.offset, str(staged.staged_path), descriptor.size)
    await remote.ask(question, staged.descriptors, arrived)
    return told


@asynccontextmanager
async def stalled(
    remote: RemoteOrigin, repository: Repository, descriptor: Descriptor, staged: StagedDownload
) -> AsyncIterator[None]:
    """Let a download run until it has stalled, for a block, and then cancel it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, remote, repository, descriptor, staged)
        await until_stalled(staged)
        yield
        nursery.cancel_scope.cancel()


def downloaders(owner: int | None = None) -> list[int]:
    """Return the pids of the downloader processes of *owner*, this process if not given."""
    return children("layerfs.fetch.downloader", owner)


@asynccontextmanager
async def asked(faulty: FaultyRegistry, **changes: Any) -> AsyncIterator[tuple[RemoteOrigin, int]]:
    """Open a remote origin whose process runs; yield both."""
    repository = faulty.repository("asked/before")
    digest = faulty.push_blob(b"{}")
    async with open_remote(RegistrySettings(**changes)) as remote:
        await remote.ask(FetchConfig(repository, Descriptor("", digest, 2)))
        (pid,) = downloaders()
        yield remote, pid


async def test_all_questions_are_answered_by_one_process(faulty: FaultyRegistry, tmp_path: Path) -> None:
    repository, blob = put(faulty)
    with staged_in(tmp_path, blob) as staged:
        async with asked(faulty) as (remote, pid):
            began = trio.current_time()
            told = await receive(remote, repository, blob, staged)
            seconds = trio.current_time() - began
            assert downloaders() == [pid]
        assert staged.commit().path.read_bytes() == CONTENT
    assert told == sorted(set(told))
    assert told[-1] == len(CONTENT)
    assert len(told) <= 7 + 2 * seconds, "each is a message, and a step of the daemon"


async def test_bytes_are_counted_by_who_sent_them_also_where_they_are_of_no_use(
    faulty: FaultyRegistry, tmp_path: Path
) -> None:
    repository, blob = put(faulty)
    url = f"http://{faulty.storage.host}/data/{blob.digest}"
    foreign = Descriptor(FOREIGN, blob.digest, blob.size, (url,))
    traffic, deaths = Traffic(), list[None]()
    with staged_in(tmp_path, blob) as staged:
        async with open_remote(
            RegistrySettings(), came=traffic.add, died=lambda: deaths.append(None)
        ) as remote:
            faulty.faults.stall_blobs = [PIECE + 1000]
            async with stalled(remote, repository, blob, staged):
                pass
            assert traffic.received == {"upstream": PIECE + 1000}
            await receive(remote, repository, foreign, staged)
            assert traffic.received == {"upstream": PIECE + 1000, "foreign": len(CONTENT) - PIECE - 1000}
            assert traffic.fallbacks == 0
            (pid,) = downloaders()
            os.kill(pid, signal.SIGKILL)
            await trio.to_thread.run_sync(wait_until, lambda: bool(deaths))
            digest = faulty.push_blob(b"{}")
            assert await remote.ask(FetchConfig(repository, Descriptor("", digest, 2))) == b"{}"
    assert len(deaths) == 1
    assert traffic.received["upstream"] == PIECE + 1000 + 2


async def test_no_process_is_started_for_no_question() -> None:
    async with open_remote(RegistrySettings()):
        await trio.sleep(0.05)
        assert downloaders() == []


async def test_a_process_that_is_wanted_early_runs_before_the_first_question() -> None:
    early = trio.Event()
    async with open_remote(RegistrySettings(offline=True), early=early) as remote:
        await trio.testing.wait_all_tasks_blocked()
        assert downloaders() == []
        early.set()
        with trio.fail_after(30):
            while not downloaders():  # noqa: ASYNC110 - a process is seen in /proc alone
                await trio.sleep(0.01)
        started = downloaders()
        with pytest.raises(Offline):
            await remote.ask(Resolve(Repository("127.0.0.1:1", "a/b").with_tag("latest")))
        assert downloaders() == started
    assert downloaders() == []


async def test_one_that_is_wanted_early_and_cannot_be_started_is_told_to_who_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    early = trio.Event()
    early.set()
    async with open_remote(RegistrySettings(), early=early) as remote:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(WorkerDied, match="cannot be started"):
            await remote.ask(Resolve(Repository("127.0.0.1:1", "a/b").with_tag("latest")))


def test_the_process_imports_neither_store_nor_extractors() -> None:
    """Somebody waits for it to start."""
    probe = "import sys, layerfs.fetch.downloader; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in modules.stdout.split() if name.startswith("layerfs.")}
    assert rooms.isdisjoint({"store", "extract", "layer", "view"})


async def test_errors_come_back_as_themselves(faulty: FaultyRegistry) -> None:
    repository = faulty.repository("a/b")
    digest = faulty.push_blob(b"{}")
    async with asked(faulty) as (remote, _):
        with pytest.raises(SizeMismatch, match="expected 3"):
            await remote.ask(FetchConfig(repository, Descriptor("", digest, 3)))
        faulty.faults.wrong_bytes = True
        with pytest.raises(DigestMismatch, match=str(digest)):
            await remote.ask(FetchConfig(repository, Descriptor("", digest, 2)))
    nowhere = Repository("127.0.0.1:1", "a/b")
    async with open_remote(RegistrySettings(offline=True)) as remote:
        with pytest.raises(Offline):
            await remote.ask(Resolve(nowhere.with_tag("latest")))


async def test_a_broken_connection_leaves_what_arrived(faulty: FaultyRegistry, tmp_path: Path) -> None:
    repository, blob = put(faulty)
    with staged_in(tmp_path, blob) as staged:
        async with asked(faulty) as (remote, _):
            faulty.faults.cut_blobs = [PIECE + 1000]
            with pytest.raises(Unreachable):
                await receive(remote, repository, blob, staged)
            assert staged.offset == PIECE + 1000
            await receive(remote, repository, blob, staged)
        assert staged.commit().size == len(CONTENT)
    ranges = [one.headers.get("range") for one in faulty.asked if str(blob.digest) in one.path]
    assert ranges == [None, f"bytes={PIECE + 1000}-{len(CONTENT) - 1}"]


async def test_a_server_that_ignores_the_range_costs_only_time(
    faulty: FaultyRegistry, tmp_path: Path
) -> None:
    repository, blob = put(faulty)
    faulty.faults.ignore_range = True
    with staged_in(tmp_path, blob) as staged:
        staged.write(CONTENT[: PIECE + 7])
        async with asked(faulty) as (remote, _):
            await receive(remote, repository, blob, staged)
        assert staged.commit().path.read_bytes() == CONTENT


async def test_excess_bytes_are_not_written(faulty: FaultyRegistry, tmp_path: Path) -> None:
    repository, blob = put(faulty)
    short = Descriptor("", blob.digest, 1000)
    with staged_in(tmp_path, short) as staged:
        async with asked(faulty) as (remote, _):
            with pytest.raises(SizeMismatch, match="expected 1000"):
                await receive(remote, repository, short, staged)
        assert staged.staged_path.stat().st_size <= 1000


async def test_a_disk_that_fails_is_the_stores_fault(faulty: FaultyRegistry, tmp_path: Path) -> None:
    repository, blob = put(faulty)
    (tmp_path / "unwritable").write_bytes(b"")
    fd = os.open(tmp_path / "unwritable", os.O_RDONLY)
    try:
        async with asked(faulty) as (remote, _):
            with pytest.raises(StoreError, match="unwritable: cannot write"):
                await remote.ask(Receive(repository, blob, 0, "unwritable", blob.size), (fd, fd))
    finally:
        os.close(fd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_process_fails_its_question_and_the_next_one_is_answered(
    faulty: FaultyRegistry, tmp_path: Path, number: signal.Signals
) -> None:
    repository, blob = put(faulty)
    faulty.faults.stall_blobs = [PIECE + 1000]
    with staged_in(tmp_path, blob) as staged:
        async with asked(faulty) as (remote, pid):
            async with trio.open_nursery() as nursery:

                async def kill() -> None:
                    await until_stalled(staged)
                    os.kill(pid, number)

                nursery.start_soon(kill)
                with pytest.raises(WorkerDied, match=rf"downloader {pid}: .*killed by signal {number:d}"):
                    await receive(remote, repository, blob, staged)
            assert staged.offset >= PIECE
            await receive(remote, repository, blob, staged)
            assert downloaders() != [pid]
        assert staged.commit().path.read_bytes() == CONTENT


async def test_who_cancels_waits_until_nothing_writes_any_more(
    faulty: FaultyRegistry, tmp_path: Path
) -> None:
    repository, blob = put(faulty)
    faulty.faults.stall_blobs = [PIECE + 1000]
    with staged_in(tmp_path, blob) as staged:
        async with asked(faulty) as (remote, pid):
            async with stalled(remote, repository, blob, staged):
                pass
            assert staged.offset == PIECE + 1000, "what had arrived was not told"
            await receive(remote, repository, blob, staged)
            assert downloaders() == [pid]


async def test_a_process_that_does_not_stop_is_ended(faulty: FaultyRegistry, tmp_path: Path) -> None:
    repository, blob = put(faulty)
    faulty.faults.stall_blobs = [PIECE + 1000]
    with staged_in(tmp_path, blob) as staged:
        async with asked(faulty) as (remote, pid):
            async with stalled(remote, repository, blob, staged):
                os.kill(pid, signal.SIGSTOP)
            await trio.to_thread.run_sync(wait_until, lambda: not runs(pid))


async def test_an_idle_process_ends_and_another_answers(faulty: FaultyRegistry) -> None:
    repository = faulty.repository("a/b")
    digest = faulty.push_blob(b"{}")
    async with open_remote(RegistrySettings(), idle_exit=0.2) as remote:
        await remote.ask(FetchConfig(repository, Descriptor("", digest, 2)))
        (pid,) = downloaders()
        await trio.to_thread.run_sync(wait_until, lambda: not runs(pid))
        assert await remote.ask(FetchConfig(repository, Descriptor("", digest, 2))) == b"{}"


async def test_a_process_that_works_is_not_idle(faulty: FaultyRegistry) -> None:
    repository = faulty.repository("a/b")
    digest = faulty.push_blob(b"{}")
    faulty.faults.hold_blobs = threading.Event()
    async with open_remote(RegistrySettings(), idle_exit=0.05) as remote, trio.open_nursery() as nursery:
        nursery.start_soon(remote.ask, FetchConfig(repository, Descriptor("", digest, 2)))
        await trio.sleep(1)
        faulty.faults.hold_blobs.set()


async def test_a_process_has_what_it_needs_and_no_more(faulty: FaultyRegistry, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        async with asked(faulty) as (_, pid):
            open_files = [
                os.readlink(entry.path)
                for entry in os.scandir(f"/proc/{pid}/fd")
                if not os.readlink(entry.path).startswith(("socket:", "anon_inode:", "pipe:"))
            ]
            environment = await trio.Path(f"/proc/{pid}/environ").read_bytes()
            assert not [name for name in open_files if "secret" in name]
            assert os.getsid(pid) == pid
            assert os.sched_getscheduler(pid) == os.SCHED_BATCH
            assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
    ours = {name for name in environment.split(b"\0") if name and not name.startswith(b"PYTHONPATH=")}
    assert ours <= {f"{name}={value}".encode() for name, value in os.environ.items()}


async def test_what_it_logs_is_logged_here(faulty: FaultyRegistry, caplog: pytest.LogCaptureFixture) -> None:
    repository, blob = put(faulty, b"{}")
    faulty.faults.warning = '299 - "the end is near"'
    caplog.set_level(logging.INFO)
    async with asked(faulty) as (remote, _):
        await remote.ask(FetchConfig(repository, blob))
    (record,) = [one for one in caplog.records if "the end is near" in one.getMessage()]
    assert (record.name, record.levelno) == ("layerfs.registry", logging.WARNING)
    caplog.clear()


async def test_one_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    async with open_remote(RegistrySettings()) as remote:
        with pytest.raises(WorkerDied, match="cannot be started: No such file"):
            await remote.ask(Resolve(Repository("127.0.0.1:1", "a/b").with_tag("latest")))


_OWNER = """
import sys, trio
from pathlib import Path
from tests.fetch.test_remote import receive, staged_in
from layerfs.fetch.remote import open_remote
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.registry import RegistrySettings

async def main(registry, digest, size, store):
    descriptor = Descriptor("", Digest.parse(digest), int(size))
    staged = staged_in(Path(store), descriptor)
    async with open_remote(RegistrySettings()) as remote:
        await receive(remote, Repository(registry, "a/b"), descriptor, staged)

trio.run(main, *sys.argv[1:])
"""


def test_a_staged_file_stays_locked_until_its_writer_is_gone(faulty: FaultyRegistry, tmp_path: Path) -> None:
    """The owner is killed while its downloader cannot notice: nobody takes the file over before it does."""
    repository, blob = put(faulty)
    faulty.faults.stall_blobs = [PIECE + 1000]
    argv = [
        sys.executable,
        "-c",
        _OWNER,
        repository.registry,
        str(blob.digest),
        str(blob.size),
        str(tmp_path),
    ]
    with subprocess.Popen(argv, cwd=Path(__file__).parents[2]) as owner:
        layers = tmp_path / "layers"
        wait_until(lambda: layers.exists() and any(f.stat().st_size >= PIECE for f in layers.iterdir()))
        (writer,) = downloaders(owner.pid)
        os.kill(writer, signal.SIGSTOP)
        owner.kill()
    with staged_in(tmp_path, blob) as other:
        assert other.offset == 0, "a file was taken over that another process may still write to"
    os.kill(writer, signal.SIGCONT)
    wait_until(lambda: not runs(writer))
    with staged_in(tmp_path, blob) as other:
        assert other.offset >= PIECE
