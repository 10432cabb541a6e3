"""A daemon with something added to its process, for `scripts/bench beside`: a program that the bench runs.

    python -m benchlib.inside busy|timer STORE MOUNTPOINT [FILE]

``busy`` adds a thread that never stops to run Python. ``timer`` adds a task that sleeps for 5 ms again and
again, and writes to FILE, a line for each time it woke: the monotonic clock, and how late it was, in seconds.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import trio

from layerfs import app
from layerfs.host.mountpoint import Mountpoint
from layerfs.settings import Settings

TICK_SECONDS: Final = 5e-3


def command(kind: str, *more: str) -> Callable[[Path, Path], list[str]]:
    """Return what makes the command line for a store and a mountpoint."""
    program = [sys.executable, "-m", "benchlib.inside", kind]
    return lambda store, mountpoint: [*program, str(store), str(mountpoint), *more]


def lateness(file: Path, since: float, until: float) -> list[float]:
    """Return how late the timer was, each time it woke between two times of the monotonic clock; seconds."""
    lines = (line.split() for line in file.read_text().splitlines())
    return [float(late) for at, late in lines if since <= float(at) <= until]


def main() -> None:
    """Serve until unmounted or told to end."""
    kind, store, mountpoint, *more = sys.argv[1:]
    settings, place = Settings(store=Path(store)), Mountpoint.open(Path(mountpoint))
    if kind == "busy":
        threading.Thread(target=_spin, daemon=True).start()
        trio.run(app.serve, settings, place, _nothing)
    else:
        with Path(more[0]).open("w", buffering=1) as file:
            trio.run(_with_timer, settings, place, file)


async def _with_timer(settings: Settings, mountpoint: Mountpoint, file: IO[str]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick, file)
        await app.serve(settings, mountpoint, _nothing)
        nursery.cancel_scope.cancel()


async def _tick(file: IO[str]) -> None:
    while True:
        due = time.monotonic() + TICK_SECONDS
        await trio.sleep(TICK_SECONDS)
        now = time.monotonic()
        file.write(f"{now:.6f} {now - due:.6f}\n")


def _spin() -> None:
    number = 0
    while True:
        number += 1


def _nothing() -> None:
    """Be told that the mount answers."""


if __name__ == "__main__":
    main()
