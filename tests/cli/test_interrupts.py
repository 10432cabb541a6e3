"""Commands that SIGINT, SIGTERM or SIGHUP ends, at any moment: nothing stays but what resumes."""

import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerfs.store import ImageStorage
from layerfs.store.measure import disk_usage
from tests.cli.conftest import CommandLine
from tests.support import clients
from tests.support.daemon import LAYERFS
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import Entry, directory, file, image, layer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS = 60
_FETCHED = r"(?:\d\d sha256:.* fetched\n)*"
_LINE = re.compile(_FETCHED + r"(layerfs: interrupted by SIG[A-Z]+; run it again to go on\n)?")


def _tree(number: int) -> list[Entry]:
    names = (f"{number}/{name}" for name in range(60))
    return [directory(str(number)), *(one for name in names for one in (directory(name), file(f"{name}/f")))]


IMAGE = image(*(layer(*_tree(number), file(f"{number}/large", os.urandom(200_000))) for number in range(4)))


@contextlib.contextmanager
def started(layerfs: CommandLine, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Start a command; the block begins when signals reach layerfs, not the start of the interpreter."""
    with subprocess.Popen(
        [*LAYERFS, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=layerfs.environment,
    ) as process:
        try:
            clients.wait_until(lambda: process.poll() is not None or _heeds(process.pid))
            yield process
        finally:
            process.kill()


def _heeds(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status)
    return caught is not None and bool(int(caught[1], 16) & 1 << signal.SIGTERM - 1)


def staged(store: Path) -> list[str]:
    """Return what is half made in *store* and will not be resumed."""
    kinds = ("*.extracting", "*.removing", "*.writing", "*/.*.writing")
    return sorted(path.name for kind in kinds for path in store.rglob(kind))


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "times", [12, pytest.param(288, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_at_any_moment_a_signal_leaves_nothing_but_what_resumes(
    layerfs: CommandLine, faulty: FaultyRegistry, memory: Path, number: signal.Signals, times: int
) -> None:
    faulty.push("a/b", "1", IMAGE)
    reference = f"{faulty.host}/a/b:1"

    def pulled(store: str, meanwhile: Callable[[int], None]) -> subprocess.CompletedProcess[str]:
        return layerfs.server.run(
            ("pull", reference),
            stdin="",
            environment=layerfs.environment | {"LAYERFS_STORE": str(memory / store)},
            cwd=layerfs.home,
            timeout=_SECONDS,
            meanwhile=meanwhile,
        )

    begun: list[float] = []
    assert pulled("whole", lambda pid: begun.append(_begun(pid))).returncode == 0
    lasts = time.monotonic() - begun[0]
    moments = random.Random(f"{number} {times}")

    def end(pid: int) -> None:
        _begun(pid)
        time.sleep(moments.uniform(0, lasts))  # the moment is what this test tries
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    ended = 0
    for attempt in range(times):
        done = pulled(str(attempt), end)
        # Negative: it had done all, and was in the last moments of the interpreter.
        assert done.returncode in (0, 128 + number, -number), done.stderr
        assert _LINE.fullmatch(done.stderr), done.stderr
        assert staged(memory / str(attempt)) == []
        ended += done.returncode == 128 + number
    assert ended > times // 4


def _begun(pid: int) -> float:
    """Return when a signal reaches layerfs, or the process has ended."""
    with contextlib.suppress(FileNotFoundError):
        clients.wait_until(lambda: _heeds(pid))
    return time.monotonic()


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_pull_says_so_and_keeps_what_came(
    layerfs: CommandLine, faulty: FaultyRegistry, number: signal.Signals
) -> None:
    faulty.push("a/b", "1", IMAGE)
    reference = f"{faulty.host}/a/b:1"
    faulty.faults.stall_blobs = [100_000] * 4
    with started(layerfs, "pull", reference) as process:
        blobs = layerfs.store / "layers"
        clients.wait_until(lambda: any(path.stat().st_size for path in blobs.glob("*.downloading")))
        clients.wait_until(lambda: len(list((layerfs.store / "extracted").glob("*.extracting"))) == 4)
        process.send_signal(number)
        _, errors = process.communicate(timeout=_SECONDS)
    assert process.returncode == 128 + number
    assert errors == f"layerfs: interrupted by {number.name}; run it again to go on\n"
    assert staged(layerfs.store) == []
    faulty.faults.stall_blobs = []
    layerfs("pull", "-q", reference)
    assert any("range" in asked.headers for asked in faulty.asked)


def test_who_ignores_a_hangup_is_not_ended_by_one(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    faulty.push("a/b", "1", IMAGE)
    command = [
        "bash",
        "-c",
        """trap '' HUP; exec "$@" """,
        "bash",
        *LAYERFS,
        "pull",
        "-q",
        f"{faulty.host}/a/b:1",
    ]
    with subprocess.Popen(command, env=layerfs.environment, stdout=subprocess.PIPE) as process:
        clients.wait_until(lambda: bool(faulty.asked))
        process.send_signal(signal.SIGHUP)
        output, _ = process.communicate(timeout=_SECONDS)
    assert (process.returncode, output.decode()) == (0, f"{IMAGE.digest}\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_export_leaves_no_file(
    layerfs: CommandLine, faulty: FaultyRegistry, tmp_path: Path, number: signal.Signals
) -> None:
    faulty.push("a/b", "1", IMAGE)
    layerfs("pull", "-q", f"{faulty.host}/a/b:1")
    place = tmp_path / "out"
    place.mkdir()
    os.mkfifo(place / "pipe")
    with started(layerfs, "export", "-o", "-", f"{faulty.host}/a/b:1") as piped:
        clients.wait_until(lambda: _waits_for_a_pipe(piped.pid))
        piped.send_signal(number)
        assert piped.wait(_SECONDS) == 128 + number
    moments = random.Random(int(number))
    for _ in range(3):
        with started(layerfs, "export", "-o", place / "x.tar", f"{faulty.host}/a/b:1") as process:
            time.sleep(moments.uniform(0, 0.3))
            process.send_signal(number)
            _, errors = process.communicate(timeout=_SECONDS)
        assert process.returncode in (0, 128 + number)
        assert _LINE.fullmatch(errors), errors
        assert {path.name for path in place.iterdir()} <= {"pipe", "x.tar"}


def _waits_for_a_pipe(pid: int) -> bool:
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


def test_a_password_prompt_gives_the_echo_back(layerfs: CommandLine) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0), os.fdopen(follower, "rb", buffering=0) as terminal:

        def echoes() -> bool:
            return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)

        command = [*LAYERFS, "login", "127.0.0.1:1", "--username", "u"]
        with subprocess.Popen(
            command,
            env=layerfs.environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        ) as process:
            clients.wait_until(lambda: not echoes())
            process.send_signal(signal.SIGTERM)
            assert process.wait(_SECONDS) == 128 + signal.SIGTERM
        assert echoes()


@pytest.mark.parametrize("command", ["pull -q", "tree", "export -o /dev/null", "lowerdir"])
def test_every_command_that_may_write_sweeps_what_dead_ones_left(
    layerfs: CommandLine, faulty: FaultyRegistry, command: str
) -> None:
    faulty.push("a/b", "1", IMAGE)
    reference = f"{faulty.host}/a/b:1"
    faulty.faults.stall_blobs = [100_000] * 4
    with started(layerfs, "pull", reference) as process:
        clients.wait_until(lambda: len(staged(layerfs.store)) == 4)
        process.kill()
    faulty.faults.stall_blobs = []
    assert len(staged(layerfs.store)) == 4
    layerfs(*command.split(), reference)
    assert staged(layerfs.store) == []


def test_df_sizes_what_a_killed_command_left(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    ImageStorage(layerfs.store).close()
    tree = layerfs.store / "extracted" / f"sha256-{'1' * 64}.{'0' * 32}.extracting"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_bytes(bytes(1000))
    os.link(tree / "a/b/file", tree / "again")
    (tree / "other").write_bytes(bytes(30))
    found = json.loads(layerfs("df", "--json").stdout)["leftovers"]
    taken = disk_usage(tree)
    assert (found["count"], found["size"], found["reclaimable"]) == (1, taken, taken)
