"""Word to systemd, as sd_notify(3) has it: ready, what is done, still alive, reloading, ending.

Type=notify-reload (systemd 253 and newer) takes the same lines as Type=notify.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final, Self

import msgspec

from layerfs.errors import MountError


class Supervisor(msgspec.Struct, frozen=True):
    """Who started this process and waits for word of it; nobody, without an *address*."""

    address: str = ""
    watchdog: float | None = None
    """Seconds without a sign of life after which systemd ends the process."""

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int) -> Self:
        """Read what systemd put into *environ*, and take it out: it is not meant for what we start."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, whose = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        watched = address and microseconds.isdecimal() and int(microseconds) and whose in ("", str(pid))
        return cls(address, int(microseconds) / 1e6 if watched else None)

    def ready(self) -> None:
        """Say that the mount answers, or that a reload is over. Raises MountError."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins. Raises MountError."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def alive(self, status: str) -> None:
        """Give a sign of life, and say in a line what is done. Raises MountError."""
        self._tell("WATCHDOG=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Say that the process is about to end. Raises MountError."""
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto("\n".join(lines).encode(), address)
            except OSError as error:
                raise MountError(f"NOTIFY_SOCKET {self.address!r}: {error.strerror}") from error


NOBODY: Final = Supervisor()


def here() -> Supervisor:
    """Return the supervisor of this process."""
    return Supervisor.take(os.environ, os.getpid())
