"""What several tests of the store need: made-up layers, and a list of what should not be there."""

import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import msgspec

from layerfs.layer.record import Extraction
from layerfs.oci import Digest
from layerfs.store import ImageStorage, LayerDir, VerifiedBlob
from layerfs.store.layout import StagedName
from layerfs.store.soundness import identity_of

T = TypeVar("T")


def blob_of(content: bytes) -> tuple[bytes, Digest]:
    """Return *content* with its digest."""
    return content, Digest.of(content)


def download(storage: ImageStorage, content: bytes) -> VerifiedBlob:
    """Put a blob into the store the way a downloader does."""
    with storage.stage_layer_download(Digest.of(content), len(content)) as staged:
        staged.write(content[staged.offset :])
        return staged.commit()


def extraction_of(content: bytes, **more: object) -> Extraction:
    """Return what an extractor might say of a blob that holds *content*."""
    digest = str(Digest.of(content))
    facts: dict[str, object] = {
        "digest": digest,
        "diff_id": digest,
        "blob_size": len(content),
        "tar_size": len(content),
        "compression": "none",
        "entries": 1,
        "files": 1,
        "file_bytes": len(content),
    }
    return Extraction(**(facts | more))  # type: ignore[arg-type]  # a test may say anything


def publish(
    storage: ImageStorage,
    content: bytes,
    fill: Callable[[Path], None] | None = None,
    **more: object,
) -> LayerDir:
    """Publish a layer directory for the blob *content*; without *fill* it holds one file, ``content``."""
    blob = storage.open_blob(Digest.of(content)) or download(storage, content)
    with storage.stage_tree(blob.digest) as tree:
        if fill is None:
            (tree.path / "content").write_bytes(content)
        else:
            fill(tree.path)
        return storage.publish(tree, blob, extraction_of(content, **more))


def as_original(images_dir: Path) -> None:
    """Have the copy of a store that `cp -a` made count as what it was copied from."""
    records = [
        record
        for shelf in ("extracted", "covers", "skeletons")
        for record in (images_dir / shelf).glob("*.json")
    ]
    for path, tree in (
        (images_dir / "owner.json", images_dir),
        *((record, record.with_suffix("")) for record in records),
    ):
        head, _, tables = path.read_bytes().partition(b"\n")
        identity = msgspec.to_builtins(identity_of(tree))
        path.write_bytes(
            msgspec.json.encode(msgspec.json.decode(head) | {"identity": identity}) + b"\n" + tables
        )


def leftovers(images_dir: Path) -> list[str]:
    """List everything staged that is below *images_dir*."""
    found = []
    for directory, names, files in os.walk(images_dir):
        found += [os.path.join(directory, name) for name in [*names, *files] if StagedName.parse(name)]
    return found


def at_once(number: int, work: Callable[[int], T]) -> list[T]:
    """Run *work* in threads that begin together; return what each returned. Raises what one raises."""
    barrier = Barrier(number)

    def begin(thread: int) -> T:
        barrier.wait()
        return work(thread)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """Run *work* in a forked process until the block ends, then make sure that it is gone.

    The block begins once *work* has returned; the process then sleeps until it is killed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(writer, b".")
            while True:
                os.read(os.pipe()[0], 1)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        if os.read(reader, 1) != b".":
            raise AssertionError("the forked process failed")
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@contextmanager
def shared_place() -> Iterator[Path]:
    """Make a directory for every user: pytest's are root's alone."""
    place = Path("/var/tmp") / f"layerfs-test-{os.urandom(8).hex()}"
    place.mkdir()
    place.chmod(0o1777)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def as_user(uid: int, work: Callable[[], None]) -> None:
    """Run *work* in a forked process of another user; fail with its traceback."""

    def as_him() -> None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        work()

    apart(as_him)


def apart(work: Callable[[], None]) -> None:
    """Run *work* in a forked process; fail with its traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the parent reports it
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as output:
        text = output.read().decode()
    assert os.waitpid(pid, 0)[1] == 0, text
