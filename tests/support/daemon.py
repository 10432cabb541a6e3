"""Runs `layerfs mount` as the real process that users run, and always ends and unmounts it.

`running(store, mountpoint)` yields a `Daemon` once the mount answers. However the block ends, the
mount is gone afterwards, lazily and with SIGKILL if need be; its log stays readable.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from layerfs.store.usage import VARIABLE
from tests.support import clients, mounts

LAYERFS = [sys.executable, "-m", "layerfs"]
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_REPOSITORY = Path(__file__).parents[2]


class DaemonFailed(AssertionError):
    """The daemon ended before its mount answered, or does not end."""


@dataclass(frozen=True)
class Daemon:
    """One daemon process in the foreground, and what it serves."""

    process: subprocess.Popen[bytes]
    store: Path
    mountpoint: Path
    log_file: Path

    @property
    def pid(self) -> int:
        """Of the daemon process."""
        return self.process.pid

    @property
    def images(self) -> Path:
        """The directory that references are named below."""
        return self.mountpoint / "images"

    def log(self) -> str:
        """Return what it has written to stderr so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def waiting(self) -> int:
        """Return how many callers wait for something that is fetched, as its status file says."""
        status = clients.read(self.mountpoint / ".layerfs/status.json")
        return int(json.loads(status)["waiting"])

    def wait_for_callers(self, number: int) -> None:
        """Return once at least so many callers wait for something that is fetched. Raises Hanging."""
        clients.wait_until(lambda: self.waiting() >= number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end, return the exit status. Raises DaemonFailed if it goes on."""
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DaemonFailed(f"the daemon does not end; its log:\n{self.log()[-4000:]}") from None

    def kill(self) -> None:
        """End it as a crash would; the dead mount stays."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(
    store: Path,
    mountpoint: Path,
    *arguments: str,
    command: list[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """Run a daemon in the foreground for a block.

    *command* replaces ``layerfs mount --store STORE -f ARGUMENTS MOUNTPOINT`` for tests of parts that
    mount by a program of their own. Raises DaemonFailed, with the log, if the mount does not answer.
    """
    mountpoint.mkdir(parents=True, exist_ok=True)
    log_file = mountpoint.with_name(f"{mountpoint.name}.{time.monotonic_ns()}.log")
    argv = command or [*LAYERFS, "mount", "--store", str(store), "-f", *arguments, str(mountpoint)]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=_REPOSITORY,
            env=clean_environment() | dict(environment or {}),
            start_new_session=True,  # a Ctrl-C at pytest is pytest's; the block's end stops the daemon
        )
    daemon = Daemon(process, store, mountpoint, log_file)
    try:
        wait_until_mounted(daemon)
        yield daemon
    finally:
        _end(daemon)


def wait_until_mounted(daemon: Daemon) -> None:
    """Return once a FUSE mount stands at the mountpoint and lists its root."""
    deadline = time.monotonic() + _START_SECONDS
    while not answers(daemon.mountpoint):
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise DaemonFailed(f"the mount does not answer; the daemon's log:\n{daemon.log()[-4000:]}")
        time.sleep(0.02)


def answers(mountpoint: Path) -> bool:
    """Say whether a FUSE mount stands at *mountpoint* and lists its root; stat alone may be cached.

    One that was dead and is taken away meanwhile uncovers a directory that can be listed, too.
    """

    def stands() -> bool:
        found = mounts.mount_at(mountpoint)
        return found is not None and found.filesystem.startswith("fuse")

    with contextlib.suppress(OSError):
        return stands() and os.listdir(mountpoint) is not None and stands()
    return False


def layerfs(
    *arguments: str | Path, store: Path | None = None, check: bool = True, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one command of the command line to its end and return what it printed."""
    environment = clean_environment() | ({"LAYERFS_STORE": str(store)} if store else {})
    return subprocess.run(
        [*LAYERFS, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=_REPOSITORY,
        env=environment,
        check=check,
        timeout=timeout,
    )


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of layerfs, except the session's mark."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("LAYERFS_") or key in ("LAYERFS_TEST_SESSION", VARIABLE)
    }


def _end(daemon: Daemon) -> None:
    if daemon.process.poll() is None:
        daemon.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.process.wait(_STOP_SECONDS)
    if daemon.process.poll() is None:
        daemon.process.kill()  # frees callers in uninterruptible waits: their requests are aborted
        daemon.process.wait()
    mounts.clear(daemon.mountpoint)
