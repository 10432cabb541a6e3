"""SIGKILL at every system call: each thing is absent or complete afterwards, and leftovers are swept."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from layerfs.errors import WorkerDied
from layerfs.extract import pipeline, skeletons, writer
from layerfs.extract.client import Extractor, Keep
from layerfs.extract.job import Done, ExtractJob, Failed, Listed, SkeletonJob
from layerfs.extract.ring import Feeder, Ring
from layerfs.extract.tail import Growth
from layerfs.layer.budgets import Budgets
from layerfs.layer.record import Extraction
from layerfs.layer.tables import rows
from layerfs.layer.toc import Content, Piece
from layerfs.oci import Digest, Repository
from layerfs.store import Capabilities, ImageStorage
from layerfs.store.verify import tree_differences
from tests.store import crash
from tests.store.helpers import as_original, download, leftovers, publish
from tests.support import images
from tests.support.tocs import estargz

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(900)]

LAYER = images.layer(
    images.directory("bin"),
    images.file("bin/tool", b"tool" * 5000, mode=0o4755),
    images.hardlink("bin/same", "bin/tool"),
    images.symlink("bin/link", "tool"),
    images.fifo("bin/pipe"),
    images.chardev("bin/null", 1, 3),
    images.file("implied/deeper/file", b"x", xattrs={"user.note": b"1"}),
    images.whiteout("implied/hidden"),
    images.directory("opaque", mode=0o1777),
    images.opaque("opaque"),
)
BASE = images.layer(
    images.directory("implied", mode=0o700), images.file("implied/hidden"), images.file("opaque/old")
)
IMAGE = images.image(BASE, LAYER)
STACK = [BASE.digest, LAYER.digest]
TAG = Repository.parse("crash")
LAZY = estargz(images.tar([images.directory("etc"), images.file("etc/a", b"x"), images.whiteout("etc/b")]))
CONTENT = Content(
    str(Digest.of(b"firstsecond")),
    11,
    [
        Piece(0, 0, 0, 0, 5, str(Digest.of(b"first"))),
        Piece(0, 0, 0, 5, 6, str(Digest.of(b"second"))),
    ],
)

Check = Callable[[ImageStorage], bool]
"""Whether the thing is there; an assertion fails if it is there in part."""


@pytest.fixture
def place(memory: Path) -> Path:
    """Where stores are made: in memory, as no power is lost here, and hundreds of fsyncs cost nothing."""
    return memory


def survive(
    place: Path,
    prepare: Callable[[ImageStorage], object],
    work: Callable[[ImageStorage], object],
    check: Check,
    points: Callable[[int], Iterable[int]],
    *,
    descendants: bool = False,
) -> int:
    """Run *work* on a prepared store, dying at each of *points*; look at the store after each death."""
    template = place / "template"
    prepare(ImageStorage(template))

    def attempt(number: int | None) -> tuple[Path, crash.Run]:
        path = place / "attempt"
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["cp", "-a", template, path], check=True)
        as_original(path)
        storage = ImageStorage(path)
        return path, crash.run(lambda: work(storage), number, descendants=descendants)

    path, whole = attempt(None)
    assert check(ImageStorage(path))
    absent = complete = 0
    for number in points(whole.calls):
        path, _ = attempt(number)
        reopened = ImageStorage(path)
        if check(reopened):
            complete += 1
        else:
            absent += 1
        assert leftovers(path) == [] or reopened.sweep(max_age=-60).total
        assert leftovers(path) == []
        work(reopened)
        assert check(reopened)
        reopened.sweep()  # a void tree is only set aside by its successor
        assert leftovers(path) == []
    assert absent
    return absent + complete


PIECE = 1000


def download_in_pieces(storage: ImageStorage) -> None:
    """Write what the notes do not promise, the front last; what they do promise is compared."""
    content = LAYER.blob
    with storage.stage_layer_download(LAYER.digest, len(content)) as staged:
        fd, _ = staged.descriptors
        assert os.pread(fd, staged.offset, 0) == content[: staged.offset]
        pieces = staged.scatter(PIECE)
        for number in reversed(range(pieces.count)):
            start, end = pieces.start(number), pieces.end(number)
            if number in pieces.here:
                assert os.pread(fd, end - start, start) == content[start:end]
                continue
            middle = (start + end) // 2
            os.pwrite(fd, content[start:middle], start)
            os.pwrite(fd, content[middle:end], middle)
            staged.keep((number,))
        staged.settle()
        staged.commit()


def blob_is_there(storage: ImageStorage) -> bool:
    blob = storage.open_blob(LAYER.digest)
    if blob is None:
        return False
    assert blob.path.read_bytes() == LAYER.blob
    return True


def document_and_ref_are_there(storage: ImageStorage) -> bool:
    if storage.has_manifest(IMAGE.digest):
        assert storage.load_manifest(IMAGE.digest).raw == IMAGE.manifest
    if storage.has_config(IMAGE.config_digest):
        assert storage.load_config(IMAGE.config_digest).raw == IMAGE.config
    entry = storage.refs.read(TAG.with_tag("1"))
    assert entry is None or entry.digest == IMAGE.digest
    return (
        entry is not None and storage.has_manifest(IMAGE.digest) and storage.has_config(IMAGE.config_digest)
    )


def save_documents(storage: ImageStorage) -> None:
    storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    storage.save_config(IMAGE.config, IMAGE.config_digest)
    storage.refs.write(TAG.with_tag("1"), IMAGE.digest)


def fill(tree: Path) -> None:
    (tree / "directory").mkdir()
    (tree / "directory/file").write_bytes(b"content")


def layer_is_there(storage: ImageStorage) -> bool:
    layer = storage.open_layer(LAYER.digest)
    if layer is None:
        return False
    assert (layer.path / "directory/file").read_bytes() == b"content"
    assert os.listdir(layer.path) == ["directory"]
    return True


def publish_layer(storage: ImageStorage) -> None:
    publish(storage, LAYER.blob, fill)
    storage.make_durable()


def void_layer(storage: ImageStorage) -> None:
    """Leave a tree of another boot in the way."""
    publish(storage, LAYER.blob, lambda tree: (tree / "old").mkdir())
    another_boot(storage.layer_extracted_path(LAYER.digest).with_suffix(".json"))


def put_object(storage: ImageStorage) -> None:
    """Have a file of a lazy layer, of two pieces."""
    with storage.lazy.objects.stage(CONTENT) as staged:
        for piece, data in zip(CONTENT.pieces, (b"first", b"second"), strict=True):
            staged.write(piece, data)
        staged.commit()
    storage.make_durable()


def object_is_there(storage: ImageStorage) -> bool:
    found = storage.lazy.objects.find(CONTENT.id)
    if found is None:
        return False
    assert found.path.read_bytes() == b"firstsecond"
    return True


Scenario = tuple[Callable[[ImageStorage], object], Callable[[ImageStorage], object], Check]


def nothing(storage: ImageStorage) -> None:
    """Prepare nothing."""


def download_blob(storage: ImageStorage) -> None:
    download(storage, LAYER.blob)


def have_both_layers(storage: ImageStorage) -> None:
    for layer in (BASE, LAYER):
        download(storage, layer.blob)
        storage.extract_layer(layer.digest, storage.layer_tarball_path(layer.digest))
    storage.close()


def publish_cover(storage: ImageStorage) -> None:
    storage.publish_cover(STACK)
    storage.make_durable()


def cover_is_there(storage: ImageStorage) -> bool:
    path = storage.cover(STACK)
    if path is None:
        return False
    found = sorted(str(found.relative_to(path)) for found in path.rglob("*"))
    assert found == ["implied", "implied/.wh.hidden", "opaque", "opaque/.wh..wh..opq"]
    assert (path / "implied").stat().st_mode & 0o7777 == 0o700
    assert stat.S_ISCHR((path / "implied/.wh.hidden").lstat().st_mode)
    return True


def discard(storage: ImageStorage) -> None:
    storage.discard_layer(LAYER.digest)


def layer_is_gone(storage: ImageStorage) -> bool:
    if not layer_is_there(storage):
        return True
    assert storage.layer_extracted_path(LAYER.digest).with_suffix(".json").exists()
    return False


SCENARIOS: dict[str, Scenario] = {
    "commit of a download": (nothing, download_blob, blob_is_there),
    "a download in pieces": (nothing, download_in_pieces, blob_is_there),
    "documents and a ref": (nothing, save_documents, document_and_ref_are_there),
    "publication of a layer": (nothing, publish_layer, layer_is_there),
    "publication over a void layer": (void_layer, publish_layer, layer_is_there),
    "removal of a layer": (publish_layer, discard, layer_is_gone),
    "a file of a lazy layer": (nothing, put_object, object_is_there),
    "publication of a cover": (have_both_layers, publish_cover, cover_is_there),
}


def at_most(wanted: int, request: pytest.FixtureRequest) -> Callable[[int], Iterable[int]]:
    """Choose evenly spread calls; all of them with ``--long``."""
    long = bool(request.config.getoption("--long"))
    return lambda calls: range(0, calls, 1 if long else -(-calls // wanted))


def test_everything_survives_a_kill_at_every_system_call(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    tried: Callable[[int], None],
) -> None:
    counts = {}
    for name, (prepare, work, check) in SCENARIOS.items():
        counts[name] = survive(place / name, prepare, work, check, at_most(32, request))
        tried(counts[name])
    with capsys.disabled():
        report(counts)
    assert sum(counts.values()) >= 200


class ExtractorsHere:
    """Extraction as a worker does it, without the start of a Python interpreter: only what matters dies."""

    def __init__(self, capabilities: Callable[[], Capabilities]) -> None:
        self.capabilities = capabilities
        self.budgets = Budgets()

    def extract(self, blob: Path, digest: Digest, target: Path, keep: Keep) -> Extraction:
        """Run one job in this process and a forked writer."""
        job = ExtractJob(blob=str(blob), target=str(target), digest=str(digest), size=-1)
        growth = Growth(complete=True, hopeless=lambda: False)
        return self._run(lambda feeder, say: pipeline.run(job, growth, feeder, say), keep)

    def make_skeleton(self, job: SkeletonJob, keep: Keep) -> Extraction:
        """Run one job in this process and a forked writer."""
        return self._run(lambda feeder, say: skeletons.run(job, feeder, say), keep)

    def _run(self, run: Callable[[Feeder, Callable[[bytes], None]], Done | Failed], keep: Keep) -> Extraction:
        ring = Ring.make()
        writer_pid = os.fork()
        if writer_pid == 0:
            try:
                os.close(ring.words_out)
                os.close(ring.answers_in)
                writer.serve(ring)
            finally:
                os._exit(0)
        os.close(ring.words_in)
        os.close(ring.answers_out)
        pieces: list[bytes] = []
        answer = run(Feeder(ring), pieces.append)
        os.close(ring.words_out)
        os.close(ring.answers_in)
        os.waitpid(writer_pid, 0)
        assert isinstance(answer, Done)
        for piece in pieces:
            keep(msgspec.json.decode(piece, type=Listed).piece)
        return answer.extraction

    def close(self) -> None:
        """Nothing runs on."""


def extract_here(storage: ImageStorage) -> None:
    storage._extractors = ExtractorsHere(lambda: storage.capabilities)  # type: ignore[assignment]  # see there
    storage.extract_layer(LAYER.digest, storage.layer_tarball_path(LAYER.digest))


def test_an_extraction_survives_a_kill_at_every_system_call(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    tried: Callable[[int], None],
) -> None:
    reference = ImageStorage(place / "reference")
    have_both_layers(reference)
    expected = reference.open_layer(LAYER.digest)
    assert expected is not None
    untimed = frozenset(rows(expected.tables().implied))

    def is_there(storage: ImageStorage) -> bool:
        layer = storage.open_layer(LAYER.digest)
        if layer is None:
            return False
        assert list(tree_differences(layer.path, expected.path, untimed)) == []
        assert layer.record.layer == expected.record.layer
        return True

    count = survive(
        place / "attempts",
        download_blob,
        extract_here,
        is_there,
        at_most(16, request),
        descendants=True,
    )
    with capsys.disabled():
        report({"extraction": count})
    tried(count)


def make_skeleton_here(storage: ImageStorage) -> None:
    here = ExtractorsHere(lambda: storage.capabilities)
    storage.lazy._extractors = here  # type: ignore[assignment]  # see there
    with storage.lazy.stage_toc(LAZY.place.digest) as staged:
        staged.write(LAZY.toc)
        storage.lazy.make_skeleton(staged, LAZY.blob_place)
    storage.make_durable()


def test_a_skeleton_survives_a_kill_at_every_system_call(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    tried: Callable[[int], None],
) -> None:
    reference = ImageStorage(place / "reference")
    make_skeleton_here(reference)
    expected = reference.lazy.open_skeleton(LAZY.place.digest)
    assert expected is not None
    untimed = frozenset(rows(expected.tables().implied))
    contents = dict(reference.lazy.contents(LAZY.place.digest))

    def is_there(storage: ImageStorage) -> bool:
        skeleton = storage.lazy.open_skeleton(LAZY.place.digest)
        if skeleton is None:
            return False
        assert list(tree_differences(skeleton.path, expected.path, untimed)) == []
        assert dict(storage.lazy.contents(LAZY.place.digest)) == contents
        toc = storage.lazy.tocs.find(LAZY.place.digest)
        assert toc is not None
        assert toc.toc.read_bytes() == LAZY.toc
        return True

    count = survive(
        place / "attempts", nothing, make_skeleton_here, is_there, at_most(20, request), descendants=True
    )
    with capsys.disabled():
        report({"skeleton": count})
    tried(count)


@pytest.mark.long
def test_an_extraction_by_a_real_worker_survives_kills_anywhere(
    place: Path, capsys: pytest.CaptureFixture[str], tried: Callable[[int], None]
) -> None:
    def extract(storage: ImageStorage) -> None:
        with storage:
            storage.extract_layer(LAYER.digest, storage.layer_tarball_path(LAYER.digest))

    def verifies(storage: ImageStorage) -> bool:
        with storage:  # its workers must end: the tracer waits for all children
            return storage.open_layer(LAYER.digest) is not None and storage.verify_layer(LAYER.digest)

    count = survive(
        place / "attempts",
        download_blob,
        extract,
        verifies,
        lambda calls: range(0, calls, max(1, calls // 40)),
        descendants=True,
    )
    with capsys.disabled():
        report({"extraction by a worker": count})
    tried(count)


def test_a_killed_worker_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Extractor.start

    def start_and_kill(self: Extractor, job: ExtractJob) -> None:
        os.kill(self.pid, signal.SIGKILL)
        real(self, job)

    with ImageStorage(place / "store") as storage:
        download_blob(storage)
        with monkeypatch.context() as patched:
            patched.setattr(Extractor, "start", start_and_kill)
            with pytest.raises(WorkerDied):
                storage.extract_layer(LAYER.digest, storage.layer_tarball_path(LAYER.digest))
        assert leftovers(storage.images_dir) == []
        storage.extract_layer(LAYER.digest, storage.layer_tarball_path(LAYER.digest))
        assert storage.verify_layer(LAYER.digest)


# Loss of power: what fsync and syncfs did not save is gone, anything else may be


def test_a_layer_that_lost_its_data_with_the_power_is_extracted_again(place: Path) -> None:
    with ImageStorage(place / "store") as storage:
        download_blob(storage)
        layer = storage.extract_layer(LAYER.digest, storage.layer_tarball_path(LAYER.digest))
    os.truncate(layer.path / "bin/tool", 0)
    another_boot(layer.path.with_suffix(".json"))
    with ImageStorage(place / "store") as storage:
        assert storage.open_layer(LAYER.digest) is None
        storage.extract_layer(LAYER.digest, storage.layer_tarball_path(LAYER.digest))
        assert (layer.path / "bin/tool").stat().st_size == 20000
        assert storage.verify_layer(LAYER.digest)


def test_a_durable_layer_is_kept_over_a_loss_of_power(place: Path) -> None:
    with ImageStorage(place / "store") as storage:
        have_both_layers(storage)
        storage.publish_cover(STACK)
        assert storage.make_durable() == 3
        inode = storage.layer_extracted_path(LAYER.digest).stat().st_ino
    for record in [*(place / "store/extracted").glob("*.json"), *(place / "store/covers").glob("*.json")]:
        another_boot(record)
    with ImageStorage(place / "store") as storage:
        assert storage.cover(STACK) is not None
        assert storage.sweep().total == 0
        found = storage.open_layer(LAYER.digest)
        assert found is not None
        assert found.path.stat().st_ino == inode


@pytest.mark.allow_warnings
def test_a_record_that_lost_its_bytes_is_no_record(place: Path) -> None:
    storage = ImageStorage(place / "store")
    publish_layer(storage)
    os.truncate(storage.layer_extracted_path(LAYER.digest).with_suffix(".json"), 0)
    assert ImageStorage(place / "store").open_layer(LAYER.digest) is None
    assert ImageStorage(place / "store").sweep().void == 1


def another_boot(record: Path) -> None:
    record.write_text(record.read_text().replace('"boot_id":"', '"boot_id":"another '))


def report(counts: dict[str, int]) -> None:
    """Say how many points were tried, whatever pytest captures."""
    sys.stdout.write("".join(f"\n  {count:4} kills: {name}" for name, count in counts.items()))
