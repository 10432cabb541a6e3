"""What becomes of a pull that a mount does when one of the two ends: nothing is lost, and nobody is kept."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from layerfs.view.texts import human_size
from tests.cli.conftest import CommandLine
from tests.cli.test_delegated import pulls, serving
from tests.cli.test_interrupts import staged
from tests.support import clients
from tests.support.daemon import LAYERFS, Daemon
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import BuiltImage, file, image, layer

pytestmark = pytest.mark.needs_root

SIZE = 300_000
SHOWN = 100_000


@pytest.fixture
def mounted(layerfs: CommandLine) -> Iterator[Daemon]:
    with serving(layerfs) as daemon:
        yield daemon


def large() -> BuiltImage:
    return image(layer(file("large", os.urandom(SIZE)), compression="none"))


def underway(daemon: Daemon) -> list[int]:
    """Return how many bytes are here of what *daemon* fetches."""
    status = json.loads(clients.read(daemon.mountpoint / ".layerfs/status.json"))
    return [one["received"] for one in status["fetching"]]


def has_beginning(daemon: Daemon, built: BuiltImage) -> bool:
    """Say whether *daemon* fetches the layer of *built*, and has all that is shown of it.

    By the file: of what came within half a second after the last news the status tells with the next.
    """
    files = daemon.store.rglob(f"{built.layers[0].digest.name}*.downloading")
    return bool(underway(daemon)) and any(file.stat().st_size >= SHOWN for file in files)


def is_taken(daemon: Daemon) -> bool:
    """Say whether *daemon* takes a pull that was begun: where it is too busy a command goes alone."""
    with suppress(clients.Hanging):
        clients.wait_until(lambda: pulls(daemon) == 1, timeout=10)
        return True
    return False


@contextmanager
def stalled(
    layerfs: CommandLine, faulty: FaultyRegistry, daemon: Daemon, *words: str, stderr: int = subprocess.PIPE
) -> Iterator[tuple[subprocess.Popen[str], BuiltImage]]:
    """Run a pull of which *daemon* has the beginning of a layer, and gets no more for the time being."""
    command = [*LAYERFS, "pull", *words, f"{faulty.host}/a/b:1"]
    for _ in range(5):
        built = large()
        faulty.push("a/b", "1", built)
        faulty.faults.stall_blobs = [SHOWN]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=layerfs.environment
        ) as process:
            try:
                if is_taken(daemon):
                    clients.wait_until(partial(has_beginning, daemon, built))
                    yield process, built
                    return
            finally:
                process.kill()
    pytest.fail("no pull was taken")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_what_is_done_for_a_command_ends_with_it(
    layerfs: CommandLine, faulty: FaultyRegistry, mounted: Daemon, number: signal.Signals
) -> None:
    with stalled(layerfs, faulty, mounted) as (process, built):
        process.send_signal(number)
        _, complaints = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            assert process.returncode == -number
            clients.wait_until(lambda: not underway(mounted))
        else:
            assert process.returncode == 128 + number
            assert complaints == f"layerfs: interrupted by {number.name}; run it again to go on\n"
            assert not underway(mounted)
    assert staged(layerfs.store) == []
    faulty.main.drop_connections()
    since = len(faulty.asked)
    layerfs("pull", "-q", f"{faulty.host}/a/b:1")
    assert pulls(mounted) == 2
    blob = next(one for one in faulty.asked[since:] if str(built.layers[0].digest) in one.path)
    assert blob.headers["range"].startswith(f"bytes={SHOWN}-")


def test_who_waits_for_the_same_layer_goes_on(
    layerfs: CommandLine, faulty: FaultyRegistry, mounted: Daemon
) -> None:
    with stalled(layerfs, faulty, mounted) as (process, built):
        path = mounted.images / faulty.host / f"a/b@{built.digest}" / "rootfs"
        with subprocess.Popen(["ls", f"{path}/"], stdout=subprocess.PIPE, text=True) as reader:
            mounted.wait_for_callers(2)
            process.kill()
            process.wait()
            clients.wait_until(lambda: mounted.waiting() == 1)
            assert underway(mounted)
            faulty.main.drop_connections()
            assert reader.communicate(timeout=60)[0] == "large\n"


def killed(daemon: Daemon) -> None:
    daemon.kill()


def ended(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)


def unmounted(daemon: Daemon) -> None:
    subprocess.run(["umount", daemon.mountpoint], check=True)


def robbed(daemon: Daemon) -> None:
    """End the process that downloads; the daemon goes on."""
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"layerfs.fetch.downloader" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "words"),
    [(killed, ""), (killed, "-q"), (killed, "--json"), (ended, ""), (unmounted, ""), (robbed, "")],
)
def test_a_command_goes_on_by_itself_as_if_it_had_begun(
    layerfs: CommandLine, faulty: FaultyRegistry, mounted: Daemon, how: Callable[[Daemon], None], words: str
) -> None:
    with stalled(layerfs, faulty, mounted, *words.split()) as (process, built):
        since = len(faulty.asked)
        how(mounted)
        output, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    name, digest, blob = f"{faulty.host}/a/b:1", built.digest, built.layers[0]
    if words == "--json":
        (found,) = json.loads(output)
        assert (found["moved_from"], found["layers"][0]["fetched"]) == (None, True)
    else:
        total = f"{name}: 1 layers, 1 fetched ({human_size(len(blob.blob))})"
        assert output.splitlines() == ([f"{name}: {digest}", total] if not words else [str(digest)])
    fetched = f"00 {blob.digest.shown}  {human_size(len(blob.blob))}  fetched\n"
    assert complaints == ("" if words == "-q" else fetched)
    ranges = [one.headers.get("range") for one in faulty.asked[since:] if str(blob.digest) in one.path]
    assert ranges == [f"bytes={SHOWN}-{len(blob.blob) - 1}"]


def test_a_tag_that_moved_is_said_to_have_moved_by_who_goes_on(
    layerfs: CommandLine, faulty: FaultyRegistry, mounted: Daemon
) -> None:
    small = image(layer(file("small", b"")))
    faulty.push("a/b", "1", small)
    layerfs("pull", "-q", "--no-daemon", f"{faulty.host}/a/b:1")
    with stalled(layerfs, faulty, mounted) as (process, built):
        mounted.kill()
        output, _ = process.communicate(timeout=60)
    first, second = output.splitlines()
    assert first == f"{faulty.host}/a/b:1: {built.digest} (moved from {small.digest})"
    assert ": 1 layers, 1 fetched" in second


def test_a_daemon_that_does_not_answer_is_not_waited_for(
    layerfs: CommandLine, faulty: FaultyRegistry, mounted: Daemon
) -> None:
    faulty.push("a/b", "1", built := image(layer(file("a", b"a"))))
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        done = layerfs("pull", "-q", f"{faulty.host}/a/b:1")
    finally:
        mounted.process.send_signal(signal.SIGCONT)
    assert done.stdout == f"{built.digest}\n"
    assert pulls(mounted) == 0


@pytest.mark.long
def test_a_daemon_that_stands_still_in_the_middle_is_left(
    layerfs: CommandLine, faulty: FaultyRegistry, mounted: Daemon
) -> None:
    with stalled(layerfs, faulty, mounted, "-q") as (process, built):
        mounted.process.send_signal(signal.SIGSTOP)
        try:  # who goes on alone needs more than Python has
            clients.wait_until(lambda: "msgspec" in Path(f"/proc/{process.pid}/maps").read_text())
        finally:
            mounted.process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, f"{built.digest}\n")


def test_what_a_daemon_does_is_drawn_on_the_terminal_of_the_command(
    layerfs: CommandLine, faulty: FaultyRegistry, mounted: Daemon
) -> None:
    leader, follower = pty.openpty()
    layerfs.environment |= {"TERM": "xterm", "COLUMNS": "100", "LANG": "C"}
    with (
        os.fdopen(leader, "rb", buffering=0) as screen,
        stalled(layerfs, faulty, mounted, stderr=follower) as (process, _),
    ):
        os.close(follower)
        shown = b""
        while b"downloading" not in shown:
            shown += os.read(screen.fileno(), 1 << 16)
        assert b" 100.0 kB of " in shown
        process.send_signal(signal.SIGINT)
        while chunk := _read(screen.fileno()):
            shown += chunk
        assert process.wait(60) == 130
    assert shown.endswith(b"\x1b[2Klayerfs: interrupted by SIGINT; run it again to go on\r\n"), shown[-200:]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # nobody has the terminal open any more
        return b""
