"""Credential helpers: programs that keep logins, or make them, as those of clouds do.

They are somebody else's and may hang, talk without end, or leave children behind: all of that is bounded.
"""

import contextlib
import os
import signal
from typing import Final

import trio

from layerfs.errors import InvalidSettings
from layerfs.registry.credentials import Credential, parse_helper_answer
from layerfs.registry.settings import RegistrySettings

_MOST: Final = 1 << 20
"""Bytes of an answer; a login has a few thousand."""
_UNKNOWN: Final = b"credentials not found in native keychain"


async def ask(program: str, server: str, settings: RegistrySettings) -> Credential | None:
    """Return what *program* knows of *server*. Raises InvalidSettings, which quotes nothing of its answer."""
    process = await _started(program, settings)
    answer, status = b"", None
    try:
        with trio.move_on_after(settings.helper_timeout):
            answer = await _exchange(process, server)
            if len(answer) <= _MOST:
                status = await process.wait()
    finally:
        await _end(process, ended=status is not None)
    if len(answer) > _MOST:
        raise InvalidSettings(f"{program}: more than {_MOST} bytes for {server} (expected one JSON object)")
    if status is None:
        raise InvalidSettings(
            f"{program}: no answer within {settings.helper_timeout:.0f} s for {server} "
            f"(does it ask somebody? try: echo {server} | {program} get)"
        )
    if status == 0:
        return parse_helper_answer(answer, program)
    if answer.strip() == _UNKNOWN:
        return None
    raise InvalidSettings(f"{program}: failed with status {status} for {server}")


async def _started(program: str, settings: RegistrySettings) -> trio.Process:
    import shutil  # helpers are rare
    import subprocess

    env = dict(settings.variables)
    found = shutil.which(program, path=env.get("PATH"))
    if found is None:
        raise InvalidSettings(f"{program}: not installed, but named by a credential file")
    try:
        return await trio.lowlevel.open_process(
            [found, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may hold anything
            env=env,
            start_new_session=True,
        )
    except OSError as exc:
        raise InvalidSettings(
            f"{program}: cannot be run: {exc.strerror} (configured after the mount? mount again)"
        ) from exc


async def _exchange(process: trio.Process, server: str) -> bytes:
    """Send the name, and return all that is said, cut where it is too much."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(trio.BrokenResourceError):  # one that reads nothing may have an answer
        await process.stdin.send_all(server.encode())
    await process.stdin.aclose()
    answer = bytearray()
    async for chunk in process.stdout:
        answer += chunk
        if len(answer) > _MOST:
            break
    return bytes(answer)


async def _end(process: trio.Process, *, ended: bool) -> None:
    """End a helper that has not ended, with its children, which may hold its output open."""
    with trio.CancelScope(shield=True):
        if not ended:  # not reaped: the number is still that of its group
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
