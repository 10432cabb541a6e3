"""The daemon's end with real sockets: only its own user is heard, and no client can keep it from others."""

import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from layerfs.delegation import asking, places
from layerfs.delegation import listening as room
from layerfs.delegation.asking import Channel, asked
from layerfs.delegation.listening import Attend, ClientLimits, Conversation, Desk, received
from layerfs.delegation.wire import (
    ALIVE,
    END,
    HEAD,
    OUTPUT,
    REFUSED,
    REQUEST_MAX,
    TAKEN,
    PullRequest,
    ScreenSize,
    framed,
)

REQUEST = PullRequest("0.1", ScreenSize(), ("image",), {"HOME": "/root"})
WHOLE = REQUEST.packed()
STRANGER = 65534


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The directory of this user's sockets, which is nobody else's here; its path has to be short."""
    with tempfile.TemporaryDirectory(prefix="lfs-", dir="/tmp") as runtime:
        monkeypatch.setattr(places, "_SYSTEM", runtime)
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield str(places.directory(os.environ, os.geteuid()))


async def answers(request: PullRequest, pid: int, conversation: Conversation) -> None:
    """Take what is asked, and say it."""
    assert pid == os.getpid()
    conversation.say(TAKEN)
    conversation.say(OUTPUT, " ".join(request.words).encode())
    await conversation.end(7)


@asynccontextmanager
async def listening(
    directory: str, attend: Attend = answers, limits: ClientLimits | None = None
) -> AsyncIterator[str]:
    """Run a desk for the block; yield the path of its socket."""
    desk = Desk(attend, limits or ClientLimits())
    with desk.listening(directory) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.serve, listener)
            (path,) = places.sockets(directory)
            yield path
            nursery.cancel_scope.cancel()


def ask() -> list[tuple[bytes, bytes]] | None:
    """Ask as a command does; return what it hears, None if nobody takes it."""
    channel = asked(WHOLE, os.environ)
    if channel is None:
        return None
    try:
        return list(channel.frames())
    finally:
        channel.close()


async def connected(path: str) -> trio.SocketStream:
    return await trio.open_unix_socket(path)


async def test_a_request_is_answered_and_a_refusal_is_none(directory: str) -> None:
    async def refuses(request: PullRequest, pid: int, conversation: Conversation) -> None:
        conversation.say(REFUSED, b"no")
        await conversation.sent()

    async with listening(directory):
        assert await trio.to_thread.run_sync(ask) == [(OUTPUT, b"image"), (END, b"\7")]
    async with listening(directory, refuses):
        assert await trio.to_thread.run_sync(ask) is None
    assert os.listdir(directory) == []
    assert await trio.to_thread.run_sync(ask) is None


async def test_sockets_of_the_dead_are_taken_away(directory: str) -> None:
    async with listening(directory) as path:
        os.rename(path, f"{directory}/kept")
    assert os.listdir(directory) == ["kept"]
    async with listening(directory) as path:
        assert os.listdir(directory) == [os.path.basename(path)]
        assert await trio.to_thread.run_sync(ask)


async def test_daemons_that_start_at_once_leave_each_other_their_sockets(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looks when this one has a socket, and does not listen yet."""
    chmod = os.chmod

    def other_starts(path: str, mode: int) -> None:
        chmod(path, mode)
        room._prepare(directory)

    monkeypatch.setattr(os, "chmod", other_starts)
    async with listening(directory):
        assert await trio.to_thread.run_sync(ask) == [(OUTPUT, b"image"), (END, b"\7")]
    assert os.listdir(directory) == []


async def takes(request: PullRequest, pid: int, conversation: Conversation) -> None:
    """Take what is asked, and never end it."""
    conversation.say(TAKEN)
    await trio.sleep_forever()


async def test_a_daemon_says_that_it_goes_on(directory: str) -> None:
    limits = ClientLimits(alive_seconds=0.01)
    async with listening(directory, takes, limits) as path, await connected(path) as client:
        await client.send_all(WHOLE)
        with trio.fail_after(30):
            assert await received(client.socket, HEAD) == framed(TAKEN)
            assert await received(client.socket, 3 * HEAD) == 3 * framed(ALIVE)


async def test_a_daemon_that_stands_still_is_left(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SILENCE", 0.1)
    async with listening(directory, takes, ClientLimits(alive_seconds=1e6)):
        with trio.fail_after(30):
            assert await trio.to_thread.run_sync(ask, abandon_on_cancel=True) == []


HOSTILE = {
    "nothing": b"",
    "a byte": b"\0",
    "half a length": WHOLE[:2],
    "no length": bytes(4),
    "a length alone": WHOLE[:4],
    "half a request": WHOLE[: len(WHOLE) // 2],
    "all but a byte": WHOLE[:-1],
    "one byte more than allowed": (REQUEST_MAX + 1).to_bytes(4, "big") + bytes(REQUEST_MAX + 1),
    "gigabytes, it says": b"\xff\xff\xff\xff" + bytes(1 << 20),
    "zeros": bytes(1 << 20),
    "noise": os.urandom(1 << 16),
    "a frame": framed(TAKEN, WHOLE),
    "no text": (256).to_bytes(4, "big") + bytes(range(256)),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("goes", [False, True], ids=["stays", "goes"])
@pytest.mark.parametrize("sent", HOSTILE)
async def test_nonsense_costs_a_client_its_connection_and_nobody_else_anything(
    directory: str, sent: str, goes: bool
) -> None:
    async with listening(directory, limits=ClientLimits(request_seconds=0.05)) as path:
        async with await connected(path) as hostile:
            with suppress(trio.BrokenResourceError):  # who sends nonsense is not heard to its end
                await hostile.send_all(HOSTILE[sent])
                if not goes:
                    with trio.fail_after(30):
                        assert await hostile.receive_some() == b""
        assert await trio.to_thread.run_sync(ask) == [(OUTPUT, b"image"), (END, b"\7")]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
async def test_a_thousand_silent_clients_keep_nobody_out_for_long(directory: str) -> None:
    async with listening(directory, limits=ClientLimits(request_seconds=0.2)) as path:
        crowd = [await connected(path) for _ in range(1000)]
        with trio.fail_after(60):
            while await trio.to_thread.run_sync(ask) is None:  # noqa: ASYNC110 - no event crosses sockets
                await trio.sleep(0.05)
        for one in crowd:
            await one.aclose()


async def test_who_does_not_read_is_given_up(directory: str) -> None:
    """One limit is on what waits, the other on how long nothing is taken."""
    ended = trio.Event()

    async def talks(size: int, request: PullRequest, pid: int, conversation: Conversation) -> None:
        conversation.say(TAKEN)
        try:
            while True:
                conversation.say(OUTPUT, bytes(size))
                await trio.lowlevel.checkpoint()
        finally:
            ended.set()

    for size, limits in (
        (1 << 20, ClientLimits(waiting_bytes=4 << 20)),
        (1, ClientLimits(stuck_seconds=0.1, waiting_bytes=1 << 30)),
    ):
        ended = trio.Event()
        async with (
            listening(directory, partial(talks, size), limits) as path,
            await connected(path) as client,
        ):
            await client.send_all(WHOLE)
            with trio.fail_after(60):
                await ended.wait()


async def test_what_is_done_for_a_client_ends_with_it(directory: str) -> None:
    begun, ended = trio.Event(), trio.Event()

    async def works(request: PullRequest, pid: int, conversation: Conversation) -> None:
        conversation.say(TAKEN)
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            assert conversation.size == (80, 24)
            ended.set()

    async with listening(directory, works) as path:
        client = await connected(path)
        await client.send_all(WHOLE + (80).to_bytes(2, "big") + (24).to_bytes(2, "big"))
        await begun.wait()
        assert not ended.is_set()
        await client.send_eof()  # as a command that was interrupted, which waits until all is let go
        with trio.fail_after(30):
            await ended.wait()
            assert await received(client.socket, 100) is None
        await client.aclose()


async def test_an_unexpected_failure_ends_no_desk(directory: str, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(request: PullRequest, pid: int, conversation: Conversation) -> None:
        conversation.say(TAKEN)
        raise RuntimeError("a bug")

    async with listening(directory, fails):
        for _ in range(2):
            assert not await trio.to_thread.run_sync(ask)
    assert caplog.text.count("unexpected failure of what a command asked for") == 2
    caplog.clear()  # a log of this kind fails the test


_NOTHING = ("0", "ConnectionResetError", "BrokenPipeError")

_CLIENT = f"""
import socket, sys
link = socket.socket(socket.AF_UNIX)
try:
    link.connect(sys.argv[1])
    link.sendall(bytes.fromhex("{WHOLE.hex()}"))
    print(len(link.recv(100)))
except (PermissionError, ConnectionResetError, BrokenPipeError) as exc:
    print(type(exc).__name__)
"""


@pytest.mark.needs_root
async def test_another_user_gets_nothing(directory: str) -> None:
    def as_stranger(path: str) -> str:
        argv = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
        argv += [sys.executable, "-S", "-c", _CLIENT, path]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    async with listening(directory) as path:
        assert await trio.to_thread.run_sync(as_stranger, path) == "PermissionError"
        os.chmod(path, 0o666)
        for each in (Path(directory), *Path(directory).parents[:2]):
            if each != Path("/tmp"):
                each.chmod(0o711)
        assert await trio.to_thread.run_sync(as_stranger, path) in _NOTHING
        assert await trio.to_thread.run_sync(ask) is None  # a directory that others enter is not asked in
        os.chmod(directory, 0o700)
        assert await trio.to_thread.run_sync(ask)


_SERVER = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.bind(sys.argv[1])
link.listen()
print(flush=True)
heard = link.accept()[0].recv(100)
print(len(heard), flush=True)
"""


@pytest.mark.needs_root
def test_a_command_says_nothing_to_another_user(directory: str) -> None:
    os.makedirs(directory, mode=0o700)
    open_to_all = Path(directory).parent
    for each, mode in ((open_to_all, 0o777), (open_to_all.parent, 0o711)):
        if each != Path("/tmp"):
            each.chmod(mode)
    argv = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    argv += [sys.executable, "-S", "-c", _SERVER, str(open_to_all / "s")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.rename(open_to_all / "s", f"{directory}/{places.name_of('1-1')}")
        assert ask() is None
        assert process.stdout.readline() == "0\n"


def test_nothing_is_asked_where_another_may_have_made_the_directory(directory: str, tmp_path: Path) -> None:
    os.makedirs(directory, mode=0o700)
    assert places.is_private(directory, os.geteuid())
    assert not places.is_private(directory, os.geteuid() + 1)
    os.chmod(directory, 0o750)
    assert not places.is_private(directory, os.geteuid())
    link = tmp_path / "link"
    link.symlink_to(directory)
    assert not places.is_private(str(link), os.geteuid())
    assert not places.is_private(str(tmp_path / "none"), os.geteuid())


async def test_a_desk_is_not_opened_where_others_may_enter(directory: str) -> None:
    os.makedirs(directory, mode=0o700)
    os.chmod(directory, 0o755)
    with pytest.raises(PermissionError):
        async with listening(directory):
            pass


def test_frames_that_make_no_sense_end_what_is_heard() -> None:
    for raw in (b"?" + bytes(4), b"o\xff\xff\xff\xff", b"o\0\0\0\5abc", b"o\0", b""):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(framed(OUTPUT, b"fine") + raw)
            theirs.shutdown(socket.SHUT_WR)
            assert list(Channel(ours).frames()) == [(OUTPUT, b"fine")]
