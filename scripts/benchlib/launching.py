"""`scripts/bench start --rates`: from nothing to the first process of a container, behind a line.

The image is one that runs: a Python with its library in the lowest layer, above it noise. Each row begins
with an empty store, and ends when `true` has run in the container; beside it stand the seconds until a Python
that imports 20 modules has run too, and what came over the line for both.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib import machine
from benchlib.fetched import Throttle
from benchlib.results import Measurement, NotAble, Sample, Target, Targets, measure_rows
from benchlib.timeline import Line, timeline
from layerfs.bells import bell_directory
from tests.support import daemon, images, mounts
from tests.support.registry import Registry
from tests.support.tocs import estargz

_LAYERS: Final = 4
_FILE: Final = 256 << 10
_DELAY: Final = 0.02
_MB: Final = 1e6
_MEMORY: Final = Path("/dev/shm")
_PYTHON: Final = Path("/usr/bin/python3.11")
_LIBRARY: Final = Path("/usr/lib/python3.11")
_LEFT_OUT: Final = frozenset({"idlelib", "lib2to3", "pydoc_data", "ensurepip", "test"})
_TRUE: Final = Path("/usr/bin/true")
_MODULES: Final = (
    "argparse,ast,base64,collections,configparser,csv,datetime,decimal,difflib,email.message,"
    "fractions,html.parser,json,logging,pathlib,shlex,statistics,string,textwrap,xml.dom.minidom"
)
_COMMANDS: Final = (["/usr/bin/true"], [str(_PYTHON), "-c", f"import {_MODULES}"])
_ENDED_SECONDS: Final = 20.0

_LAZY: Final = "layerfs overlay, lazy"
_PLAIN: Final = "layerfs overlay, plain gzip"
_PODMAN: Final = "podman pull, image mount, chroot"
_UMOCI: Final = "skopeo copy, umoci unpack, chroot"
_OF_PODMAN: Final = "x podman"

InContainer = Callable[[Sequence[str]], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    rates: Sequence[float]
    """MB/s of each line; 0 for one without a limit."""
    megabytes: int
    svg: Path | None
    """Where the graph of the last round at the first of the rates goes."""


def measurements(plan: Plan, rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield a table for each rate."""
    with tempfile.TemporaryDirectory(prefix="layerfs-bench.", dir=_MEMORY) as name:
        base = Path(name)
        with Registry(base / "registry") as registry:
            progress("making the images")
            _push(registry, plan.megabytes)
            for rate in plan.rates:
                scene = _Scene(base, registry, rate)
                line = f"{rate:g} MB/s, {_DELAY * 1000:g} ms a request" if rate else "a line without a limit"
                title = f"first process of an image of {plan.megabytes} MB at {line}"
                yield measure_rows(title, "s", "less", scene.all, rounds, progress, _targets(rate))
                if plan.svg is not None and rate == plan.rates[0]:
                    plan.svg.write_text(timeline(title, scene.lines), encoding="utf-8")


def _targets(rate: float) -> Targets:
    lazy = {3.0: [Target(12)], 25.0: [Target(1)]}
    return {_LAZY: lazy.get(rate, [])}


def _push(registry: Registry, megabytes: int) -> None:
    """Push the image in both forms: with TOCs, and as plain gzip."""
    noise = random.Random(23).randbytes
    archives = [images.tar(_userland())]
    for number in range(_LAYERS - 1):
        count = megabytes * 1_000_000 // (_LAYERS - 1) // _FILE
        files = [images.file(f"opt/{number}/f{each}", noise(_FILE)) for each in range(count)]
        archives.append(images.tar([images.directory(f"opt/{number}"), *files]))
    lazy = [estargz(archive).built for archive in archives]
    registry.push("bench/lazy", "latest", images.image(*lazy))
    plain = [images.layer(archive=archive) for archive in archives]
    registry.push("bench/plain", "latest", images.image(*plain))


def _userland() -> list[images.Entry]:
    """Return `true`, Python, its library, and what the linker loads for them. Raises NotAble."""
    if not _PYTHON.is_file():
        raise NotAble(f"{_PYTHON} is not installed")
    dynamic = sorted((_LIBRARY / "lib-dynload").glob("*.so"))
    said = subprocess.run(
        ["ldd", _TRUE, _PYTHON, *dynamic], capture_output=True, text=True, check=True
    ).stdout
    files = {Path(found) for found in re.findall(r"(/\S+\.so\S*) \(0x", said)} | {_TRUE, _PYTHON}
    files |= {
        path
        for path in _LIBRARY.rglob("*")
        if path.is_file() and not path.is_symlink() and not _LEFT_OUT & set(path.parts)
    }
    entries = [images.directory(name) for name in ("tmp", "dev", "proc", "sys", "etc")]
    for path in sorted(files):
        name = os.fspath(path.relative_to("/"))
        entries.append(images.file(name, path.read_bytes(), path.stat().st_mode & 0o777))
    return entries


class _Scene:
    """One line to the registry, and an empty store for each row."""

    def __init__(self, base: Path, registry: Registry, rate: float) -> None:
        self._base = base
        self._registry = registry
        self._rate = rate * _MB or float("inf")
        self.lines: list[Line] = []
        """What the rows of the last round asked when."""

    def all(self) -> Mapping[str, Sample]:
        """Run each row once."""
        self.lines = []
        found = {_LAZY: self._measured(_LAZY, self._by_layerfs("lazy", "always"))}
        plain = self._measured(_PLAIN, self._by_layerfs("plain", "auto"))
        for name, contender in ((_PODMAN, self._by_podman), (_UMOCI, self._by_umoci)):
            try:
                found[name] = self._measured(name, contender)
            except NotAble as exc:
                sys.stderr.write(f"{name}: {exc}\n")
        podman = found.get(_PODMAN)
        more = {} if podman is None else {_OF_PODMAN: plain.value / podman.value}
        return {_LAZY: found[_LAZY], _PLAIN: Sample(plain.value, {**plain.more, **more}), **found}

    def _measured(
        self, name: str, contender: Callable[[Path, str], contextlib.AbstractContextManager[InContainer]]
    ) -> Sample:
        with (
            tempfile.TemporaryDirectory(dir=self._base, ignore_cleanup_errors=True) as place,
            Throttle(self._registry.port, self._rate, _DELAY if self._rate < float("inf") else 0) as throttle,
        ):
            mark, started = self._registry.mark(), time.monotonic()
            with contender(Path(place), throttle.host) as run:
                run(_COMMANDS[0])
                first = time.monotonic() - started
                passed, requests = throttle.passed, len(self._registry.requests(mark))
                waited = time.monotonic()  # to look at the registry's log costs nobody
                run(_COMMANDS[1])
                python = first + time.monotonic() - waited
                asked = [when - started for when in throttle.asked]
                self.lines.append(Line(name, [when for when in asked if when <= first], first))
                more = {"MB": passed / _MB, "requests": requests, "Python s": python}
            return Sample(first, {**more, "MB, Python": throttle.passed / _MB})

    def _by_layerfs(
        self, name: str, lazy: str
    ) -> Callable[[Path, str], contextlib.AbstractContextManager[InContainer]]:
        @contextlib.contextmanager
        def contender(place: Path, host: str) -> Iterator[InContainer]:
            store, target = place / "store", place / "root"
            target.mkdir()
            more = ["--lazy", lazy, "--store", str(store), f"{host}/bench/{name}:latest", str(target)]
            try:
                machine.run([*daemon.LAYERFS, "overlay", *more])
                yield lambda argv: machine.run(["chroot", target, *argv])
            finally:
                mounts.clear(target)
                _end_bell(store)

        return contender

    @contextlib.contextmanager
    def _by_podman(self, place: Path, host: str) -> Iterator[InContainer]:
        runroot = Path("/tmp", f"lfb-{os.getpid()}")  # podman takes at most 50 characters
        podman = ["podman", "--root", str(place / "root"), "--runroot", str(runroot)]
        name = f"{host}/bench/plain:latest"
        try:
            machine.run([*podman, "pull", "--quiet", "--tls-verify=false", name])
            # Not podman run, which no machine without cgroups of its own can do: it would take longer.
            said = subprocess.run(
                [*podman, "image", "mount", name], capture_output=True, text=True, check=True
            )
            yield lambda argv: machine.run(["chroot", said.stdout.strip(), *argv])
        finally:
            mounts.clear(place / "root")
            shutil.rmtree(runroot, ignore_errors=True)

    @contextlib.contextmanager
    def _by_umoci(self, place: Path, host: str) -> Iterator[InContainer]:
        source, layout = f"docker://{host}/bench/plain:latest", f"{place}/layout:latest"
        machine.run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"oci:{layout}"])
        machine.run(["umoci", "unpack", "--image", layout, place / "bundle"])
        yield lambda argv: machine.run(["chroot", place / "bundle/rootfs", *argv])


def _end_bell(store: Path) -> None:
    """End the mount that was started for a lazy overlay, which would end by itself in seconds."""
    bell = bell_directory(store)
    with contextlib.suppress(OSError, ValueError):
        os.kill(json.loads((bell / ".layerfs/status.json").read_bytes())["pid"], signal.SIGTERM)
        end = time.monotonic() + _ENDED_SECONDS
        while mounts.mount_at(bell) is not None and time.monotonic() < end:
            time.sleep(0.01)
