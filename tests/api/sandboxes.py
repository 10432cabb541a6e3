"""A runtime: starts so many sandboxes of one image at once, ends them, and begins anew; prints what is left.

``python -m tests.api.sandboxes FACE STORE REFERENCE DIR COUNT SECONDS``, FACE is threads or trio. A sandbox
is a writable root with a process in it. After the first round, and at the end, it looks at what this has.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import trio

import layerfs
from layerfs.api import on_trio

WORKERS = 16
"""Threads that start and end sandboxes."""


def begin_process(root: Path) -> "subprocess.Popen[bytes]":
    (root / "written").write_text("by the sandbox")
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=root)


def end_process(process: "subprocess.Popen[bytes]") -> None:
    assert process.poll() is None, "the sandbox died"
    process.communicate()


def threads(store: str, reference: str, places: list[Path], again: Callable[[], bool]) -> None:
    """Have sandboxes in threads."""
    with layerfs.Store.open(store, offline=True) as opened, ThreadPoolExecutor(WORKERS) as pool:
        image = opened.image(reference)

        def begin(place: Path) -> tuple[layerfs.Mount, "subprocess.Popen[bytes]"]:
            mount = image.mount(place, rw=True)
            return mount, begin_process(place)

        def end(sandbox: tuple[layerfs.Mount, "subprocess.Popen[bytes]"]) -> None:
            end_process(sandbox[1])
            sandbox[0].close()

        while True:
            running = list(pool.map(begin, places))
            require_roots(places)
            list(pool.map(end, running))
            if not again():
                return


async def tasks(store: str, reference: str, places: list[Path], again: Callable[[], bool]) -> None:
    """Have sandboxes in tasks of trio, all in their blocks at once."""
    async with on_trio.Store.open(store, offline=True) as opened:
        image = await opened.image(reference)

        async def sandbox(place: Path) -> None:
            async with await image.mount(place, rw=True):
                process = begin_process(place)
                begun.append(place)
                if len(begun) == len(places):
                    require_roots(places)
                    all_run.set()
                await all_run.wait()
                end_process(process)

        while True:
            begun: list[Path] = []
            all_run = trio.Event()
            async with trio.open_nursery() as nursery:
                for place in places:
                    nursery.start_soon(sandbox, place)
            if not again():
                return


def require_roots(places: list[Path]) -> None:
    """All sandboxes run now."""
    assert all((place / "etc/motd").read_bytes() == b"welcome" for place in places)
    assert len(mounts_below(places)) == len(places)


def mounts_below(places: list[Path]) -> list[str]:
    wanted = {str(place) for place in places}
    return [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] in wanted
    ]


class Rounds:
    """Goes on for some seconds, at least two rounds."""

    def __init__(self, store: str, places: list[Path], seconds: float) -> None:
        self._store, self._places, self._seconds = Path(store), places, seconds
        self._began = 0.0
        self.looks: list[dict[str, int]] = []
        self.rounds = 0

    def again(self) -> bool:
        """Say whether another round is due; looks after the first and after the last."""
        self.rounds += 1
        if self.rounds == 1:
            self._began = time.monotonic()
            self.looks.append(self.look())
            return True
        if time.monotonic() < self._began + self._seconds:
            return True
        self.looks.append(self.look())
        return False

    def look(self) -> dict[str, int]:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        overlays = self._store / "overlays"
        gc.collect()
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "mounts": len(mounts_below(self._places)),
            "processes": sum(
                len(Path(f"/proc/self/task/{task}/children").read_text().split())
                for task in os.listdir("/proc/self/task")
            ),
            "threads": int(status["Threads"]),
            "memory": int(status["RssAnon"].split()[0]) * 1024,
            "objects": len(gc.get_objects()),
            "scratches": len(os.listdir(overlays)),
            "leases": len(os.listdir(self._store / "leases")),
        }


def main() -> None:
    face, store, reference, directory, count, seconds = sys.argv[1:]
    places = [Path(directory) / str(number) for number in range(int(count))]
    for place in places:
        place.mkdir()
    rounds = Rounds(store, places, float(seconds))
    if face == "threads":
        threads(store, reference, places, rounds.again)
    else:
        trio.run(tasks, store, reference, places, rounds.again)
    json.dump({"rounds": rounds.rounds, "looks": rounds.looks}, sys.stdout)


if __name__ == "__main__":
    main()
