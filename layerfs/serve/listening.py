"""Sockets to listen at: those of an address, or those that systemd hands over (sd_listen_fds(3))."""

import os
import stat
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from pathlib import Path
from typing import Final

import trio

from layerfs.errors import InvalidSettings, LayerfsError
from layerfs.settings import Address

_FIRST_FD: Final = 3
_BACKLOG: Final = 1024
_MODE: Final = 0o600
"""The mode of a socket in the filesystem: for this user; systemd's SocketMode= can say otherwise."""


def handed_over(environ: MutableMapping[str, str]) -> list[trio.SocketListener]:
    """Return the listeners that systemd hands over, none without it; children do not see them.

    Raises InvalidSettings for what is no listening stream socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        try:
            found.append(trio.SocketListener(trio.socket.socket(fileno=fd)))
        except (OSError, ValueError) as exc:
            raise InvalidSettings(
                f"LISTEN_FDS: descriptor {fd} is no socket that listens: {exc} (expected ListenStream= and "
                "Accept=no in the unit of the socket)"
            ) from exc
    return found


async def listen(address: Address) -> list[trio.SocketListener]:
    """Listen at *address*; a name may have several. Raises LayerfsError."""
    try:
        if address.path is not None:
            return [await _listen_here(address.path)]
        return await trio.open_tcp_listeners(address.port, host=address.host or None, backlog=_BACKLOG)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        advice = (
            "another --listen, or end what listens there" if exc.errno == EADDRINUSE else "another --listen"
        )
        raise LayerfsError(f"{address}: cannot listen: {reason} (expected {advice})") from exc


@contextmanager
def removed_at_end(address: Address) -> Iterator[None]:
    """Remove behind the block the socket that `listen` has made in the filesystem."""
    try:
        yield
    finally:
        if address.path is not None:
            with suppress(OSError):
                address.path.unlink()


def shown(listener: trio.SocketListener) -> Address:
    """Return where a listener listens."""
    name = listener.socket.getsockname()
    if listener.socket.family == trio.socket.AF_UNIX:
        return Address(path=Path(os.fsdecode(name)))
    return Address(str(name[0]), int(name[1]))


async def _listen_here(path: Path) -> trio.SocketListener:
    """Listen at a socket in the filesystem, in place of one that nobody listens at. Raises OSError."""
    opened = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await _remove_abandoned(trio.Path(path))
        await opened.bind(os.fspath(path))
        await trio.Path(path).chmod(_MODE)  # nobody gets in before listen(2)
        opened.listen(_BACKLOG)
    except BaseException:
        opened.close()
        raise
    return trio.SocketListener(opened)


async def _remove_abandoned(path: trio.Path) -> None:
    try:
        if not stat.S_ISSOCK((await path.lstat()).st_mode):
            return
    except FileNotFoundError:
        return
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            await path.unlink()
