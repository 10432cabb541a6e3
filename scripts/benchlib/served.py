"""The contenders of `scripts/bench mount`: each serves the same two layers, a tree and one big file.

All of them read from one tmpfs, so that what is compared is the way through FUSE. The native directory is
what a lowerdir of layerfs names; it has no daemon.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchlib import machine
from benchlib.inputs import Input
from benchlib.results import SUBJECT, NotAble
from layerfs.oci import Digest
from tests.support import daemon, images, mounts
from tests.support.registry import Registry

Layer = Literal["tree", "big"]
_START_SECONDS = 60
_NUMBER: dict[Layer, str] = {"tree": "00", "big": "01"}


@dataclass(frozen=True, slots=True)
class Served:
    """A fresh mount: where the layer is, and who serves it."""

    path: Path
    pid: int | None

    def cpu(self) -> float:
        """Return the CPU seconds of the daemon so far."""
        return machine.cpu_of(self.pid) if self.pid else 0.0


Contender = Callable[[Layer], AbstractContextManager[Served]]


class Backing:
    """The two layers in every form that a contender wants, in one directory."""

    def __init__(self, base: Path, tree: Input, big: Input) -> None:
        self._base = base
        self._given: dict[Layer, Input] = {"tree": tree, "big": big}
        self._image = Path()

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Unpack for the peers, and let layerfs fetch both layers into its store."""
        for layer, given in self._given.items():
            progress(f"preparing {layer}")
            self.native(layer).mkdir(parents=True)
            machine.run(["tar", "-xpf", given.blob, "-C", self.native(layer)])
            with self._archive(layer).open("wb") as out:
                subprocess.run(["gzip", "-dc", given.blob], stdout=out, check=True)
        progress("preparing the store")
        with Registry(self._base / "registry") as registry:
            self._image = Path("images", registry.host, "bench:latest")
            registry.push("bench", "latest", images.image(*map(built, self._given.values())))
            with daemon.running(self._base / "store", self._base / "first") as first:
                for number in _NUMBER.values():
                    list((first.mountpoint / self._image / "layers" / number / "diff").iterdir())
        shutil.rmtree(self._base / "registry")

    def native(self, layer: Layer) -> Path:
        """Return the directory that GNU tar extracted."""
        return self._base / "native" / layer

    def contenders(self) -> dict[str, Contender]:
        """Return the contenders by name, in the order in which they run."""
        return {
            SUBJECT: self._layerfs,
            "fuse-overlayfs": self._fuse_overlayfs,
            "ratarmount": self._ratarmount,
            "native directory": self._native,
        }

    @contextlib.contextmanager
    def _layerfs(self, layer: Layer) -> Iterator[Served]:
        try:
            with daemon.running(self._base / "store", self._new_mountpoint()) as running:
                link = running.mountpoint / self._image / "layers" / _NUMBER[layer] / "diff"
                yield Served(link.resolve(), running.pid)
        except daemon.DaemonFailed as exc:
            raise NotAble(str(exc)[-200:]) from exc

    @contextlib.contextmanager
    def _fuse_overlayfs(self, layer: Layer) -> Iterator[Served]:
        target = self._new_mountpoint()
        with _foreground(
            ["fuse-overlayfs", "-f", "-o", f"lowerdir={self.native(layer)}", target], target
        ) as pid:
            yield Served(target, pid)

    @contextlib.contextmanager
    def _ratarmount(self, layer: Layer) -> Iterator[Served]:
        target = self._new_mountpoint()
        indexes = self._base / "indexes"
        command: list[str | Path] = [
            "ratarmount",
            "-f",
            "--index-folders",
            indexes,
            self._archive(layer),
            target,
        ]
        with _foreground(command, target) as pid:
            yield Served(target, pid)

    @contextlib.contextmanager
    def _native(self, layer: Layer) -> Iterator[Served]:
        # Dentries of a tmpfs stay in memory: this row is always warm.
        yield Served(self.native(layer), None)

    def _archive(self, layer: Layer) -> Path:
        return self._base / f"{layer}.tar"

    def _new_mountpoint(self) -> Path:
        path = self._base / "mounts" / str(time.monotonic_ns())
        path.mkdir(parents=True)
        return path


@contextlib.contextmanager
def _foreground(command: Sequence[str | Path], target: Path) -> Iterator[int]:
    """Run a FUSE daemon in the foreground; yield its pid once it answers. Raises NotAble."""
    if shutil.which(str(command[0])) is None:
        raise NotAble(f"{command[0]} is not installed")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not daemon.answers(target):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise NotAble(process.communicate()[1].decode(errors="replace").strip()[-160:] or "no mount")
            time.sleep(0.01)
        yield process.pid
    finally:
        mounts.clear(target)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.communicate()


def built(given: Input) -> images.BuiltLayer:
    """Return an input as the layer of an image to push."""
    digest, diff_id = Digest.parse(given.digest), Digest.parse(given.diff_id)
    return images.BuiltLayer(given.blob.read_bytes(), digest, diff_id, given.format, given.about)
