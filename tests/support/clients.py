"""Programs that read a mount, as processes of their own: a hanging one must not hang the tests.

A process in an uninterruptible wait cannot be killed, so nothing here waits for one without a limit;
ending the daemon frees it (see `tests.support.daemon`).
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_SECONDS = 60.0
Argument = str | bytes | Path


class Hanging(AssertionError):
    """A client does not come back."""


def run(*argv: Argument, timeout: float = _SECONDS) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and return its output. Raises Hanging."""
    with started(*argv) as client:
        return finish(client, timeout)


def read(path: Path, timeout: float = _SECONDS) -> bytes:
    """Return the content of a file, read by cat. Raises OSError with its errno if cat fails."""
    done = run("cat", path, timeout=timeout)
    if done.returncode:
        raise OSError(_errno_in(done.stderr.decode()), done.stderr.decode().strip(), str(path))
    return done.stdout


def names(path: Path, timeout: float = _SECONDS) -> set[str]:
    """Return the names in a directory, read by ls. Raises OSError with its errno if ls fails."""
    done = run("ls", "-A", path, timeout=timeout)
    if done.returncode:
        raise OSError(_errno_in(done.stderr.decode()), done.stderr.decode().strip(), str(path))
    return set(done.stdout.decode().split())


@contextlib.contextmanager
def started(*argv: Argument) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; it is killed at the end of the block, but not waited for without a limit."""
    client = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"LC_ALL": "C"},
    )
    try:
        yield client
    finally:
        if client.poll() is None:
            client.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(10)
        for stream in (client.stdout, client.stderr):
            if stream is not None:
                stream.close()


def finish(client: subprocess.Popen[bytes], timeout: float = _SECONDS) -> subprocess.CompletedProcess[bytes]:
    """Wait for a program and return its output. Raises Hanging."""
    try:
        out, err = client.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        where = waiting_in(client.pid)
        raise Hanging(f"{client.args!r} does not end within {timeout} s (it waits in {where})") from None
    return subprocess.CompletedProcess(client.args, client.returncode, out, err)


def finish_all(clients: Sequence[subprocess.Popen[bytes]], timeout: float = _SECONDS) -> list[bytes]:
    """Wait for several programs, return what each printed. Raises Hanging, AssertionError if one fails."""
    printed = []
    for client in clients:
        done = finish(client, timeout)
        assert done.returncode == 0, f"{client.args!r}: {done.stderr!r}"
        printed.append(done.stdout)
    return printed


def wait_until_blocked(*clients: subprocess.Popen[bytes]) -> None:
    """Return once one of the programs waits for an answer of a FUSE daemon. Raises Hanging if none ever does.

    Of several that look up one name the kernel asks for one; the others wait for it, elsewhere.
    """
    deadline = time.monotonic() + _SECONDS
    while True:
        places = [waiting_in(client.pid) for client in clients]
        if "request_wait_answer" in places:
            return
        if time.monotonic() > deadline or all(client.poll() is not None for client in clients):
            raise Hanging(f"{clients[0].args!r} does not wait for the daemon (it waits in {places[0]})")
        time.sleep(0.01)


def wait_until(condition: Callable[[], bool], timeout: float = _SECONDS) -> None:
    """Return once *condition* holds. Raises Hanging."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Hanging(f"what was waited for does not happen within {timeout} s")
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Say whether a process has not ended yet; one that nobody has waited for has.

    The first thread of a process may be a zombie while others still end, with the descriptors of them all.
    """
    with contextlib.suppress(OSError):
        process = Path(f"/proc/{pid}")
        ended = (process / "stat").read_text().rpartition(") ")[2][0] in "ZX"
        return not ended or len(os.listdir(process / "task")) > 1
    return False


def children(module: str, parent: int | None = None) -> list[int]:
    """Return the pids of the processes of *parent*, this process if not given, that run a Python *module*."""
    argv = ["pgrep", "-P", str(parent or os.getpid()), "-f", module]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def waiting_in(pid: int) -> str:
    """Name the kernel function that a process sleeps in."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/wchan").read_text()
    return "nothing: it has ended"


def _errno_in(message: str) -> int:
    for number in range(1, 134):
        if message.rstrip().endswith(os.strerror(number)):
            return number
    return 0
