"""What one of several processes does to a store at random: everything that uses things, or removes them.

Each process is in a mount namespace of its own. It fails as soon as somebody who holds a lease, a lock or a
mount does not read all bytes of his layers right.
"""

import ctypes
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import RawIOBase
from pathlib import Path
from typing import Final

from layerfs.errors import NotInStore
from layerfs.gc.jobs import collect_garbage, remove_images
from layerfs.gc.keeper import Keeper
from layerfs.gc.limits import Limits
from layerfs.layer.overlayfs import lowerdir_option
from layerfs.oci import Digest, Repository, stack_digest
from layerfs.settings.kinds import Amount
from layerfs.store import ImageStorage
from tests.store.helpers import publish
from tests.support.images import BuiltImage, BuiltLayer, file, image, layer

REPOSITORY: Final = Repository.of("r.io", "race/repository")
FILES: Final = 5
NAMED_SECONDS: Final = 2.0
_NEWNS, _REC, _PRIVATE, _RDONLY = 0x20000, 0x4000, 1 << 18, 1
"""CLONE_NEWNS of unshare(2); MS_REC, MS_PRIVATE and MS_RDONLY of mount(2)."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _libc(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def names_of(number: int) -> list[str]:
    """Return the files of the layer *number*; all have its content."""
    return [f"{number}-{each}" for each in range(FILES)]


def built_layer(number: int) -> BuiltLayer:
    """Return a layer that is told from all others by each of its files."""
    return layer(*(file(name, content_of(number)) for name in names_of(number)), compression="none")


def content_of(number: int) -> bytes:
    """Return what is in each file of the layer *number*."""
    # Mounts of another process of the tests would count as uses: they are told by digests.
    return f"layer {number} of {os.environ.get('PYTEST_XDIST_WORKER', 'all')} ".encode() * 150


LAYERS: Final = [built_layer(number) for number in range(6)]
DIGESTS: Final = [one.digest for one in LAYERS]
STACKS: Final = [(0, 1), (0, 1, 2), (2, 3), (4, 5), (0, 5)]
"""The layers of each image, base first; some are shared."""
IMAGES: Final[list[BuiltImage]] = [image(*(LAYERS[number] for number in stack)) for stack in STACKS]


class Racer:
    """One user of the store *directory*, with a place of its own below *work*."""

    def __init__(self, directory: Path, work: Path, seed: int) -> None:
        self.storage = ImageStorage(directory)
        self.random = random.Random(seed)
        self.point = work / f"mnt-{seed}"
        self.seed = seed
        self.actions: dict[Callable[[], None], int] = {
            self.pull: 6, self.embed: 5, self.overlay: 5, self.mount_named: 3, self.look: 6, self.remove: 4,
            self.collect: 4, self.evict: 3, self.sweep: 2, self.settle: 1, self.break_off: 2,
        }  # fmt: skip

    def run(self, seconds: float, at_least: int, done: RawIOBase) -> None:
        """Act until the time is over and *at_least* steps are done; write the name of each to *done*."""
        self.point.mkdir(exist_ok=True)
        private_mounts()
        end, steps = time.monotonic() + seconds, 0
        with self.storage:
            while steps < at_least or time.monotonic() < end:
                [action] = self.random.choices(list(self.actions), list(self.actions.values()))
                action()
                done.write(f"{action.__name__}\n".encode())
                steps += 1

    # Those who use

    def have(self, number: int) -> None:
        """Have a layer in the store, as a fetch does: present, one worker, blob, tree."""
        storage, built = self.storage, LAYERS[number]
        with self.present(built.digest), storage.lock(built.digest):
            if storage.open_layer(built.digest) is None:
                publish(storage, built.blob, lambda tree: fill(tree, number), entries=FILES)

    def pull(self) -> None:
        """Fetch an image and give it a name; with the lease that a fetch takes."""
        which, storage = self.random.randrange(len(IMAGES)), self.storage
        built = IMAGES[which]
        with storage.lease(self.name("pull"), [built.digest, *built_stack(which)]):
            storage.save_manifest(built.manifest, built.digest)
            storage.save_config(built.config, built.config_digest)
            for number in STACKS[which]:
                self.have(number)
                self.check(number)
            storage.refs.write(REPOSITORY.with_tag(str(which)), built.digest)
            assert storage.has_manifest(built.digest)
            assert storage.has_config(built.config_digest)

    def embed(self) -> None:
        """Extract a tar of one's own, as a sandbox runtime does, and use it under a lease."""
        number = self.random.randrange(len(LAYERS))
        digest = DIGESTS[number]
        with self.storage.lease(self.name("embedded"), [digest]):
            if self.random.random() < 0.1:  # a worker for each process takes seconds to start
                blob = self.storage.images_dir.parent / f"{number}.tar"
                self.storage.extract_layer(digest, blob)
            self.have(number)
            for _ in range(3):
                self.check(number)

    def overlay(self) -> None:
        """Mount a stack under a lease, give the lease back, and read through the mount."""
        which = self.random.randrange(len(IMAGES))
        with self.mounted(which, self.storage.lease(self.name("mounting"), built_stack(which)).release):
            for _ in range(3):
                self.read_mount(which)

    def mount_named(self) -> None:
        """Mount what was named a moment ago: nobody but a lease with a time keeps it until then."""
        which = self.random.randrange(len(IMAGES))
        until = datetime.now(UTC) + timedelta(seconds=NAMED_SECONDS)
        self.storage.lease(self.name("named"), built_stack(which), until=until)
        try:
            with self.mounted(which, lambda: None):
                self.read_mount(which)
        except (OSError, NotInStore):
            if datetime.now(UTC) < until:
                raise

    @contextmanager
    def mounted(self, which: int, release: Callable[[], None]) -> Iterator[None]:
        """Mount cover and layers of an image, which the caller has leased; *release* the lease then."""
        storage, stack = self.storage, [DIGESTS[number] for number in STACKS[which]]
        try:
            for number in STACKS[which]:
                self.have(number)
            storage.publish_cover(stack)
            mount_stack(storage, which, self.point)
        finally:
            release()
        try:
            yield
        finally:
            unmount_stack(self.point)

    def read_mount(self, which: int) -> None:
        """Read all of an overlay."""
        expected = sorted(name for number in STACKS[which] for name in names_of(number))
        assert sorted(os.listdir(self.point)) == expected
        for number in STACKS[which]:
            for name in names_of(number):
                assert (self.point / name).read_bytes() == content_of(number)

    def look(self) -> None:
        """See a layer and a blob whole, or not at all, while nobody can take it away."""
        number = self.random.randrange(len(LAYERS))
        with self.present(DIGESTS[number]):
            if self.storage.open_layer(DIGESTS[number]) is not None:
                self.check(number)
            blob = self.storage.open_blob(DIGESTS[number])
            assert blob is None or blob.path.read_bytes() == LAYERS[number].blob

    def check(self, number: int) -> None:
        """Read all of a layer that must be there."""
        found = self.storage.open_layer(DIGESTS[number])
        assert found is not None, f"layer {number} is lost"
        assert sorted(os.listdir(found.path)) == names_of(number)
        for name in names_of(number):
            assert (found.path / name).read_bytes() == content_of(number)

    # Those who remove

    def remove(self) -> None:
        """Remove an image by name, if it has one."""
        name = REPOSITORY.with_tag(str(self.random.randrange(len(IMAGES)))).reference
        entry = self.storage.refs.read(name)
        if entry is not None:
            remove_images(self.storage, {name: entry})

    def collect(self) -> None:
        """Collect garbage."""
        collect_garbage(self.storage)

    def evict(self) -> None:
        """Keep the store small."""
        Keeper(self.storage, Limits(max_size=Amount(self.random.choice((1, 40_000, 100_000))))).keep()

    def sweep(self) -> None:
        """Sweep what is left over, while others work."""
        self.storage.sweep(max_age=self.random.choice((-60, 1000)))

    def settle(self) -> None:
        """Make durable."""
        self.storage.make_durable()

    def break_off(self) -> None:
        """Download a part."""
        built = self.random.choice(LAYERS)
        with self.present(built.digest), self.storage.lock(built.digest):
            if self.storage.open_blob(built.digest) is None:
                with self.storage.stage_layer_download(built.digest, len(built.blob)) as staged:
                    staged.write(built.blob[staged.offset : staged.offset + 1000])

    @contextmanager
    def present(self, digest: Digest) -> Iterator[None]:
        """Work with a digest: nobody removes it meanwhile."""
        lock = self.storage.locks.presence(digest)
        lock.acquire(60)
        try:
            yield
        finally:
            lock.release()

    def name(self, what: str) -> str:
        """Return a name for a lease of this process."""
        return f"{what}-{self.seed}"


def built_stack(which: int) -> Sequence[Digest]:
    """Return the layers and the cover of an image."""
    layers = [DIGESTS[number] for number in STACKS[which]]
    return [*layers, stack_digest(layers)]


def fill(tree: Path, number: int) -> None:
    """Write a layer as its extraction would."""
    for name in names_of(number):
        (tree / name).write_bytes(content_of(number))
    tree.chmod(0o755)


def private_mounts() -> None:
    """Enter a mount namespace of its own; what is mounted in it is mounted nowhere else. Raises OSError."""
    _libc("unshare", _NEWNS)
    _libc("mount", b"none", b"/", None, _REC | _PRIVATE, None)


def mount_stack(storage: ImageStorage, which: int, point: Path) -> None:
    """Mount the cover and the layers of an image, all of which are there. Raises OSError."""
    stack = [DIGESTS[number] for number in STACKS[which]]
    lowers = [
        storage.cover_path(stack),
        *(storage.layer_extracted_path(digest) for digest in reversed(stack)),
    ]
    option = lowerdir_option(list(map(os.fsencode, lowers)))
    _libc("mount", b"overlay", os.fsencode(point), b"overlay", _RDONLY, option)


def unmount_stack(point: Path) -> None:
    """Unmount it. Raises OSError."""
    _libc("umount2", os.fsencode(point), 0)
