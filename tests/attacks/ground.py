"""What the attacks of this directory are about: a few images, and the judge of a store that has suffered."""

import contextlib
import ctypes
import itertools
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.store.helpers import leftovers
from tests.support import canary, clients, daemon, images
from tests.support import leftovers as leftovers_of
from tests.support.images import BuiltImage, BuiltLayer, Entry
from tests.support.registry import Registry

_LIBC: Final = ctypes.CDLL(None)
_PR_SET_CHILD_SUBREAPER: Final = 36
"""prctl(2)."""

ROOT = images.directory(".")


def _layer(name: str, files: int, size: int) -> BuiltLayer:
    """Return a layer with one of everything; it lists all directories, so that their times are known."""
    content = random.Random(name)
    entries: list[Entry] = [ROOT, images.directory(name), images.directory(f"{name}/opaque", mode=0o1777)]
    entries += [images.file(f"{name}/f{n}", content.randbytes(size)) for n in range(files)]
    entries += [
        images.hardlink(f"{name}/hard", f"{name}/f0"),
        images.symlink(f"{name}/link", "f0"),
        images.fifo(f"{name}/fifo"),
        images.chardev(f"{name}/null", 1, 3),
        images.file(f"{name}/tool", b"tool", mode=0o4755, uid=7, xattrs={"user.note": b"1"}),
        images.whiteout(f"{name}/gone"),
        images.opaque(f"{name}/opaque"),
    ]
    return images.layer(*entries)


def built() -> list[BuiltImage]:
    """Return three images: a few large files, many small ones, both; they share the base."""
    base = _layer("base", 3, 400_000)
    large, small = _layer("large", 2, 1_500_000), _layer("small", 400, 700)
    return [
        images.image(base, large, _layer("a", 2, 400_000)),
        images.image(base, small, _layer("b", 50, 2000)),
        images.image(base, small, large, _layer("c", 1, 10)),
    ]


@dataclass(frozen=True)
class Ground:
    """Images in a registry, and the trees that they lead to, as an undisturbed store has them."""

    images: list[BuiltImage]
    names: list[str]
    trees: dict[Digest, canary.Snapshot]
    others: frozenset[int]
    """Processes of layerfs that ran before."""

    def running(self) -> list[int]:
        """Return the pids of the processes of layerfs that the test started, and of theirs."""
        return sorted(_running() - self.others)

    def nothing_runs(self) -> None:
        """Return once no process of layerfs runs any more: none outlives its owner. Raises Hanging."""
        clients.wait_until(lambda: not self.running())

    def compare(self, store: Path) -> int:
        """Compare each tree that a store believes in with the undisturbed one; return how many there are."""
        found = 0
        with ImageStorage(store) as storage:
            for digest, expected in self.trees.items():
                layer = storage.open_layer(digest)
                if layer is not None:
                    canary.assert_same(expected, _snapshot(layer.path))
                    found += 1
                blob = storage.open_blob(digest)
                assert blob is None or Digest.of(blob.path.read_bytes()) == digest
        return found

    def heal(self, store: Path, first: int = 3) -> None:
        """Pull the *first* images, undisturbed: they are there and right, a sweep leaves nothing else."""
        done = daemon.layerfs("pull", *self.names[:first], store=store, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        wanted = {layer.digest for image in self.images[:first] for layer in image.layers}
        assert self.compare(store) == len(wanted)
        with ImageStorage(store) as storage:
            storage.sweep(max_age=-60)
        assert leftovers(store) == []


def _snapshot(tree: Path) -> canary.Snapshot:
    """Describe a tree, but for the times of whiteout devices, which no archive says."""
    facts = canary.snapshot(tree)
    return {path: replace(fact, mtime_ns=0) if fact.device == 0 else fact for path, fact in facts.items()}


def prepared(registry: Registry, place: Path) -> Ground:
    """Push the images, and extract their layers where nothing disturbs it."""
    others, made = _running(), built()
    names = [str(registry.push(f"attacked/{n}", "latest", image)) for n, image in enumerate(made)]
    store = place / "undisturbed"
    daemon.layerfs("pull", *names, store=store)
    with ImageStorage(store) as storage:
        paths = {layer.digest: storage.open_layer(layer.digest) for image in made for layer in image.layers}
        trees = {digest: _snapshot(layer.path) for digest, layer in paths.items() if layer is not None}
    assert len(trees) == len(paths)
    return Ground(made, names, trees, others)


def pull(store: Path, *names: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run `layerfs pull` to its end; *before* it stands what runs it. Raises TimeoutExpired."""
    return subprocess.run(
        [*before, *daemon.LAYERFS, "pull", "--store", str(store), *names],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=Path(__file__).parents[2],
        env=daemon.clean_environment(),
        timeout=100,
    )


def rounds(short: int, long: int) -> list[Any]:
    """Return parameters for so many rounds in each run, and with ``--long`` for so many."""
    return [pytest.param(n, marks=[] if n < short else pytest.mark.long) for n in range(long)]


def _running() -> frozenset[int]:
    found = {pid: leftovers_of.command(pid) for pid in leftovers_of.descendants(os.getpid())}
    return frozenset(pid for pid, words in found.items() if _is_layerfs(words))


def _is_layerfs(words: list[bytes]) -> bool:
    """Say whether a command line is of the script, of ``python -m layerfs`` or of a helper."""
    return any(word.endswith(b"/bin/layerfs") for word in words[:3]) or any(
        option == b"-m" and module.startswith(b"layerfs") for option, module in itertools.pairwise(words)
    )


@contextlib.contextmanager
def orphans_adopted() -> Iterator[None]:
    """Become the parent of processes whose own has died, so that `Ground.running` finds them."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0)
        # What the test itself started was waited for; whoever else has ended is an orphan.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
