"""`scripts/bench start`: the fixed prices, of what is small, beside `python -c pass`, podman and skopeo.

One table, all rows in turn in each round: on a machine that others use as well only ratios mean something.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchlib import machine
from benchlib.results import Measurement, NotAble, Sample, Target, measure_rows
from layerfs.delegation import places
from tests.support import daemon, images, mounts
from tests.support.registry import Registry

_IMAGES: Final = 100
_ROOTS: Final = 200
_TINY: Final = "tiny"
_LARGER: Final = "larger"
_LARGER_BYTES: Final = 32 << 20
_MEMORY: Final = Path("/dev/shm")
_WAIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.002
_SETTLED_SECONDS: Final = 0.1
"""What a daemon does behind an answer is done by then, but for the sync a second later."""

_PYTHON: Final = "python -c pass"
_OF_LIMIT: Final = "x of 120 ms or 3 times Python and 60 ms"
_OF_PODMAN: Final = "x podman"
_CPU: Final = "CPU ms"
_ABOVE: Final = "ms above mount(2)"
_START: Final = [Target(1, figure=_OF_LIMIT)]
_SHOWN: Final = f"a root by the library, 2nd to {_ROOTS}th"
_WRITTEN: Final = f"a writable root by the library, 2nd to {_ROOTS}th"
_TARGETS: Final = {
    "layerfs --version": _START,
    f"layerfs images ({_IMAGES})": _START,
    "layerfs pull": [Target(1.5, figure=_OF_PODMAN), Target(350, figure=_CPU)],
    "layerfs pull, a mount is there": [Target(0.5, figure=_OF_PODMAN), Target(350, figure=_CPU)],
    "layerfs overlay": [Target(150)],
    "layerfs mount, first answer": [Target(150)],
    _SHOWN: [Target(5, figure=_ABOVE)],
    _WRITTEN: [Target(5, figure=_ABOVE)],
}
_SIZES: Final = {"layerfs pull, 32 MiB": [Target(90)], "layerfs mount, idle": [Target(40)]}

# In a process that has everything imported, as a runtime that embeds the library.
_SANDBOX: Final = """
import os, sys, time
import layerfs
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import Overlay, mount_overlay

store, name, place, count = sys.argv[1:]
places = [os.path.join(place, str(number)) for number in range(int(count))]
for each in places:
    os.mkdir(each)

def alone(lowers, where):
    started = time.perf_counter()
    with Mountpoint.open(where) as target:
        mount_overlay(Overlay(lowers), target)
    return time.perf_counter() - started

def by_library(image, where, **how):
    started = time.perf_counter()
    running.append(image.mount(where, **how))
    return time.perf_counter() - started

def median(times):
    return sorted(times)[len(times) // 2]

with layerfs.Store.open(store, offline=True) as opened:
    image, running = opened.image(name), []
    lowers = [os.fsencode(path) for path in image.lowerdirs()]
    with image.mount(places[0]):  # the first has modules of the kernel loaded
        pass
    kernel = [alone(lowers, where) for where in places[1:]]
    for where in places[1:]:
        with Mountpoint.open(where) as target:
            target.unmount()
    shown = [by_library(image, where) for where in places[1:]]
    for mount in running:
        mount.close()
    running.clear()
    written = [by_library(image, where, rw=True) for where in places[1:]]
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda mount: mount.close(), running))
    print(*map(median, (kernel, shown, written)))
"""


def measurements(rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield the table of the fixed prices, and that of memory."""
    with tempfile.TemporaryDirectory(prefix="layerfs-bench.", dir=_MEMORY) as name:
        base = Path(name)
        with Registry(base / "registry") as registry:
            scene = _Scene(base, registry)
            scene.prepare(progress)
            yield measure_rows("fixed prices", "ms", "less", scene.prices, rounds, progress, targets=_TARGETS)
            yield measure_rows(
                "memory of all processes, what they share counted once (PSS)", "MB", "less", scene.sizes,
                max(1, rounds // 4), progress, targets=_SIZES,
            )  # fmt: skip


class _Scene:
    """A registry on loopback, a store with 100 images, and a place for what each run makes."""

    def __init__(self, base: Path, registry: Registry) -> None:
        self._base = base
        self._registry = registry
        self._store = base / "store"
        self._pushed = 0
        self._runroot = Path("/tmp", f"lfb-{os.getpid()}")  # podman takes at most 50 characters

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Push the images, and have the store fetch all but the larger one."""
        progress("pushing and fetching images")
        push, noise = self._registry.push, random.Random(5).randbytes
        push(_TINY, "latest", images.image(images.layer(images.file("etc/motd", b"hello"))))
        files = [images.file(f"f{number}", noise(1 << 18)) for number in range(_LARGER_BYTES >> 18)]
        push(_LARGER, "latest", images.image(images.layer(*files)))
        names = [f"many/image{number}" for number in range(_IMAGES - 1)]
        for number, name in enumerate(names):
            push(name, "latest", images.image(images.layer(images.file("etc/motd", b"%d" % number))))
        self._layerfs("pull", "--quiet", *map(self._reference, (_TINY, *names)), store=self._store)

    def prices(self) -> Mapping[str, Sample]:
        """Run everything once."""
        python = _sample([sys.executable, "-c", "pass"])
        limit = min(120, 3 * python.value + 60)
        found = {_PYTHON: python}
        for words in (["--version"], ["images"]):
            name = f"layerfs {words[0]}" + (f" ({_IMAGES})" if words == ["images"] else "")
            sample = self._layerfs(*words, store=self._store)
            found[name] = Sample(sample.value, {**sample.more, _OF_LIMIT: sample.value / limit})
        found |= self._pulls()
        found["layerfs overlay"] = self._overlay()
        found["layerfs mount, first answer"] = self._first_answer()
        alone, shown, written = self._roots()
        found["mount(2) alone"] = Sample(alone)
        found[_SHOWN] = Sample(shown, {_ABOVE: shown - alone})
        found[_WRITTEN] = Sample(written, {_ABOVE: written - alone})
        return found

    def sizes(self) -> Mapping[str, Sample]:
        """Return the memory that a pull has at most, and that a mount has which nobody uses."""
        with self._place() as place:
            reference = self._reference(_LARGER)
            argv = [*daemon.LAYERFS, "pull", "--quiet", "--store", str(place / "store"), reference]
            peak = _peak_pss_mb(argv)
        with self._place() as place, daemon.running(self._store, place / "mnt") as running:
            os.listdir(running.images)
            time.sleep(0.2)  # it is idle once it has said that it is ready
            idle = _family_pss_mb(running.pid)
        return {"layerfs pull, 32 MiB": Sample(peak), "layerfs mount, idle": Sample(idle)}

    def _pulls(self) -> dict[str, Sample]:
        reference = self._reference(_TINY)
        found = {}
        with self._place() as place, contextlib.suppress(NotAble):
            root = ["--root", str(place / "root"), "--runroot", str(self._runroot)]
            try:
                argv = ["podman", *root, "pull", "--quiet", "--tls-verify=false", reference]
                found["podman pull"] = _sample(argv)
            finally:
                mounts.clear(place / "root")
                shutil.rmtree(self._runroot, ignore_errors=True)
        with self._place() as place, contextlib.suppress(NotAble):
            to = f"dir:{place / 'image'}"
            argv = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", to]
            found["skopeo copy"] = _sample(argv)
        with self._place() as place:
            ours = {"layerfs pull": self._layerfs("pull", reference, store=place / "store")}
        ours |= self._delegated()
        podman = found.get("podman pull")
        for name, sample in ours.items():
            more = {_OF_PODMAN: sample.value / podman.value} if podman else {}
            found[name] = Sample(sample.value, {**sample.more, **more})
        return found

    def _delegated(self) -> dict[str, Sample]:
        """Have a mount pull: with helper processes that run already, and with none, as after a minute."""
        with self._place() as place, daemon.running(place / "store", place / "mnt") as running:
            _wait_for_desk(running)
            self._by_daemon(running)  # starts both
            warm = self._by_daemon(running)
            _end_helpers(running)
            return {
                "layerfs pull, a mount is there": warm,
                "layerfs pull, a mount is there, its helpers are not": self._by_daemon(running),
            }

    def _by_daemon(self, running: daemon.Daemon) -> Sample:
        """Pull an image that nobody has; what the daemon and its helpers use of the processors is added."""
        self._pushed += 1
        built = images.image(images.layer(images.file("etc/motd", b"%d" % self._pushed)))
        self._registry.push(f"delegated/{self._pushed}", "latest", built)
        before = _family_cpu_ms(running.pid)
        sample = self._layerfs("pull", self._reference(f"delegated/{self._pushed}"), store=running.store)
        time.sleep(_SETTLED_SECONDS)
        used = {pid: ms - before.get(pid, 0) for pid, ms in _family_cpu_ms(running.pid).items()}
        return Sample(sample.value, {_CPU: sample.more[_CPU] + sum(used.values())})

    def _overlay(self) -> Sample:
        with self._place() as place:
            (target := place / "root").mkdir()
            try:
                return self._layerfs("overlay", self._reference(_TINY), str(target), store=self._store)
            finally:
                mounts.clear(target)

    def _first_answer(self) -> Sample:
        with self._place() as place:
            (target := place / "mnt").mkdir()
            argv = [*daemon.LAYERFS, "mount", "--foreground", "--store", str(self._store), str(target)]
            started = time.perf_counter()
            with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    while not os.path.isdir(target / "images"):
                        if time.perf_counter() > started + _WAIT_SECONDS:
                            raise NotAble("no mount")
                        time.sleep(0.001)
                    seconds = time.perf_counter() - started
                    return Sample(seconds * 1000, {_CPU: machine.cpu_of(process.pid) * 1000})
                finally:
                    process.terminate()
                    process.wait()
                    mounts.clear(target)

    def _roots(self) -> tuple[float, ...]:
        """Return the medians of many roots that are mounted at once, in milliseconds."""
        with self._place() as place:
            words = [str(self._store), self._reference(_TINY), str(place), str(_ROOTS)]
            try:
                argv = [sys.executable, "-c", _SANDBOX, *words]
                done = subprocess.run(argv, capture_output=True, text=True, check=True)
            finally:
                mounts.clear(place)
        return tuple(float(word) * 1000 for word in done.stdout.split())

    def _layerfs(self, *words: str, store: Path) -> Sample:
        options = ["--store", str(store)] if words[0] != "--version" else []
        return _sample([Path(sys.executable).with_name("layerfs"), *words, *options])

    def _reference(self, name: str) -> str:
        return f"{self._registry.host}/{name}:latest"

    @contextlib.contextmanager
    def _place(self) -> Iterator[Path]:
        """Yield an empty directory, which is gone after the block; making and removing it costs nobody."""
        with tempfile.TemporaryDirectory(dir=self._base, ignore_cleanup_errors=True) as name:
            yield Path(name)


def _sample(argv: Sequence[str | Path]) -> Sample:
    cost = machine.run(argv)
    return Sample(cost.seconds * 1000, {_CPU: cost.cpu * 1000})


def _wait_for_desk(running: daemon.Daemon) -> None:
    """Return once a mount takes pulls. Raises NotAble."""
    directory = places.directory(os.environ, os.geteuid()) or ""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not any(f"-{running.pid}-" in path for path in places.sockets(directory)):
        if time.monotonic() > deadline:
            raise NotAble("no mount takes pulls")
        time.sleep(_POLL_SECONDS)


def _end_helpers(running: daemon.Daemon) -> None:
    for pid in list(_family(running.pid))[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while len(list(_family(running.pid))) > 1:
        time.sleep(_POLL_SECONDS)


def _family_cpu_ms(pid: int) -> dict[int, float]:
    """Return what a process and all below it have used so far, by pid (schedstat of proc(5), in ns)."""
    used: dict[int, float] = {}
    for one in _family(pid):
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{one}/task").iterdir()
            used[one] = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6
    return used


def _peak_pss_mb(argv: Sequence[str]) -> float:
    """Run a command; return the most that it and all processes below it had at one of many looks."""
    peak = 0.0
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _family_pss_mb(process.pid))
            time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise NotAble(f"exit {process.returncode}")
    return peak


def _family_pss_mb(pid: int) -> float:
    """Return the proportional set size of a process and all below it (smaps_rollup of proc_pid_smaps(5))."""
    total = 0
    for one in _family(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # the thread that starts a process is its parent
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _family(int(child))
