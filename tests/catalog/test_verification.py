"""`Verification`: real damage of each kind is found, named, and made good."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xattr

from layerfs.catalog.verification import Report, Verification
from layerfs.host import boot_id
from layerfs.needs import BlobNeed, DocumentNeed, Need
from layerfs.oci import stack_digest
from layerfs.oci.reference import ImageReference
from layerfs.store import ImageStorage
from layerfs.store.checking import Checked, Checker, How
from layerfs.store.locks import ByteLock
from layerfs.store.stock import Stored
from tests.store.helpers import download, leftovers
from tests.support.images import directory, file, flip_byte, hardlink, image, layer, symlink, whiteout

pytestmark = [pytest.mark.needs_root, pytest.mark.allow_warnings]

BASE = layer(
    directory("etc"),
    file("etc/passwd", b"root" * 100, xattrs={"user.note": b"x"}),
    file("etc/one", b"twice"),
    hardlink("etc/two", "etc/one"),
    file("etc/three", b"twice"),
    hardlink("etc/four", "etc/three"),
    symlink("etc/link", "passwd"),
    file("etc/gone", b"gone"),
    file("implied/file", b"its directory has no entry"),
)
TOP = layer(whiteout("etc/gone"), file("new", b"new"))
IMAGE = image(BASE, TOP)
NAME = ImageReference.parse("registry.example/verify/image:1")
STACK = [BASE.digest, TOP.digest]

MANIFEST = Stored("manifest", IMAGE.digest)
CONFIG = Stored("config", IMAGE.config_digest)
BLOB = Stored("blob", BASE.digest)
LAYER = Stored("layer", BASE.digest)
COVER = Stored("cover", stack_digest(STACK))


class Held:
    """A store with one image, and who fetches what is taken away."""

    def __init__(self, path: Path) -> None:
        self.storage = ImageStorage(path)
        self.fetched: list[Need] = []
        self.save()
        for built in IMAGE.layers:
            self.storage.extract_layer(built.digest, download(self.storage, built.blob).path)
        self.storage.publish_cover(STACK)
        self.storage.refs.write(NAME, IMAGE.digest)

    def save(self) -> None:
        """Have the documents."""
        self.storage.save_manifest(IMAGE.manifest, IMAGE.digest)
        self.storage.save_config(IMAGE.config, IMAGE.config_digest)

    def fetch(self, need: Need) -> None:
        """Do what a registry does that has everything."""
        self.fetched.append(need)
        if isinstance(need, BlobNeed):
            download(self.storage, next(x.blob for x in IMAGE.layers if x.digest == need.descriptor.digest))
        else:
            self.save()

    def verify(self, how: How = How(), *, resume: bool = False) -> Report:  # noqa: B008 - frozen
        """Verify all of it."""
        self.fetched = []
        work = Verification(self.storage, how, fetch=self.fetch, resume=resume)
        return work.run(None, lambda _found, _done, _total: None)

    def path(self, what: Stored) -> Path:
        """Return where a thing is."""
        return self.storage.stock.path(what)


@pytest.fixture
def held(store: Path) -> Iterator[Held]:
    made = Held(store)
    with made.storage:
        yield made


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """One for all damage that is repaired."""
    made = Held(tmp_path_factory.mktemp("mended") / "store")
    with made.storage:
        yield made


def verdicts(report: Report, *wanted: str) -> dict[Stored, str]:
    """Return what is wrong with each thing that has one of the verdicts *wanted*."""
    return {
        one.what: " | ".join(one.checked.problems) for one in report.findings if one.checked.verdict in wanted
    }


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the content of a file, but neither its times nor its mode."""
    status = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def kept_time(directory: Path, change: Callable[[], object]) -> None:
    """Make a change in a directory that keeps its time."""
    status = directory.stat()
    change()
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_good_store_is_right(held: Held) -> None:
    report = held.verify()
    assert {one.what for one in report.findings} == {
        MANIFEST, CONFIG, BLOB, Stored("blob", TOP.digest), LAYER, Stored("layer", TOP.digest), COVER,
    }  # fmt: skip
    assert report.count("right") == len(report.findings)
    assert all(one.images == (str(NAME),) for one in report.findings)
    assert (report.wrong, report.leftovers, report.records) == (0, {}, {})
    assert leftovers(held.storage.images_dir) == []
    assert not (held.storage.images_dir / "verified").exists()


def cut(tree: Path) -> None:
    name = tree / "etc/two"

    def change() -> None:
        status = name.stat()
        name.unlink()
        name.write_bytes(b"twice")
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns))

    kept_time(name.parent, change)


def relink(tree: Path) -> None:
    def change() -> None:
        for name, target in (("two", "three"), ("four", "one")):
            (tree / "etc" / name).unlink()
            (tree / "etc" / name).hardlink_to(tree / "etc" / target)

    kept_time(tree / "etc", change)


def retarget(tree: Path) -> None:
    link = tree / "etc/link"
    status = link.lstat()

    def change() -> None:
        link.unlink()
        link.symlink_to("shadow")
        os.utime(link, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    kept_time(link.parent, change)


def retype(tree: Path) -> None:
    def change() -> None:
        (tree / "new").unlink(missing_ok=True)
        (tree / "etc/passwd").unlink()
        os.mkfifo(tree / "etc/passwd")

    kept_time(tree / "etc", change)


def unwhite(cover: Path) -> None:
    found = [path for path in cover.rglob("*") if stat.S_ISCHR(path.lstat().st_mode)]
    assert found
    kept_time(found[0].parent, found[0].unlink)


def edit_record(tree: Path) -> None:
    edit(tree.with_name(f"{tree.name}.json"), lambda raw: raw.replace(b'"entries":', b'"entries":1', 1))


def edit_tables(tree: Path) -> None:
    edit(tree.with_name(f"{tree.name}.json"), lambda raw: raw[:-3] + b"X" + raw[-2:])


DAMAGE = [
    pytest.param(BLOB, lambda p: edit(p, flip_byte), "the blob hashes to", id="a byte of a blob"),
    pytest.param(BLOB, lambda p: os.truncate(p, 50), "50 bytes (expected", id="a truncated blob"),
    pytest.param(
        MANIFEST, lambda p: edit(p, lambda raw: raw + b" "), "the manifest hashes to", id="manifest"
    ),
    pytest.param(CONFIG, lambda p: edit(p, flip_byte), "the config hashes to", id="config"),
    pytest.param(
        LAYER,
        lambda p: edit(p / "etc/passwd", flip_byte),
        "etc/passwd: other bytes than in the archive",
        id="content",
    ),
    pytest.param(
        LAYER,
        lambda p: edit(p / "etc/passwd", lambda b: b[:-1]),
        "etc/passwd: 399 bytes (expected 400)",
        id="size",
    ),
    pytest.param(LAYER, lambda p: (p / "etc/passwd").chmod(0o666), "mode 0666 (expected 0644)", id="mode"),
    pytest.param(LAYER, lambda p: os.chown(p / "etc", 7, 8), "owner 7:8 (expected 0:0)", id="owner"),
    pytest.param(
        LAYER,
        lambda p: xattr.setxattr(p / "etc/passwd", "user.note", b"y"),
        "other extended attributes than in the archive: user.note",
        id="xattr",
    ),
    pytest.param(LAYER, lambda p: os.utime(p / "etc/passwd", (1, 1)), "mtime 1000000000 ns (exp", id="mtime"),
    pytest.param(
        LAYER,
        lambda p: kept_time(p / "etc", (p / "etc/extra").touch),
        "etc/extra: not in the archive",
        id="an extra file",
    ),
    pytest.param(
        LAYER,
        lambda p: kept_time(p / "etc", (p / "etc/gone").unlink),
        "etc/gone: missing",
        id="a missing file",
    ),
    pytest.param(LAYER, cut, "etc/two: 1 hard links (expected 2)", id="a hard link cut"),
    pytest.param(LAYER, relink, "a hard link to another file than in the archive", id="hard links swapped"),
    pytest.param(LAYER, retarget, "etc/link: leads elsewhere", id="a link"),
    pytest.param(LAYER, retype, "etc/passwd: a pipe (expected a regular file)", id="type"),
    pytest.param(LAYER, edit_record, "the record says entries 1", id="a record edited"),
    pytest.param(LAYER, edit_tables, "the record lists other markers", id="a table edited"),
    pytest.param(COVER, unwhite, ": missing", id="a cover's whiteout"),
]


@pytest.mark.parametrize(("what", "damage", "problem"), DAMAGE)
def test_damage_is_found_named_and_repaired(
    mended: Held, what: Stored, damage: Callable[[Path], object], problem: str
) -> None:
    held = mended
    damage(held.path(what))
    found = verdicts(held.verify(), "wrong")
    assert list(found) == [what]
    assert problem in found[what]
    assert " | " not in found[what] or "hard link" in problem  # that is wrong at each of its names
    repaired = held.verify(How(repair=True))
    assert verdicts(repaired, "repaired") == found
    assert repaired.wrong == 0
    assert bool(held.fetched) == (what.kind in ("blob", "manifest", "config"))
    again = held.verify()
    assert again.count("right") == len(again.findings) == 7
    held.storage.sweep()
    assert leftovers(held.storage.images_dir) == []


def test_paths_longer_than_the_kernel_takes_are_compared(store: Path) -> None:
    name = "/".join(["d" * 200] * 20 + ["file"])
    deep = layer(file(name, b"x"))
    with ImageStorage(store) as storage:
        extracted = storage.extract_layer(deep.digest, download(storage, deep.blob).path)
        assert len(os.fspath(extracted.path / name)) > 4096
        assert storage.verify_layer(deep.digest)
        fd = os.open(extracted.path, os.O_RDONLY)
        for _ in range(20):
            fd, above = os.open("d" * 200, os.O_RDONLY, dir_fd=fd), fd
            os.close(above)
        os.chmod("file", 0o666, dir_fd=fd)
        os.close(fd)
        assert not storage.verify_layer(deep.digest)


def test_quick_reads_no_content_and_finds_what_shows_without(held: Held) -> None:
    edit(held.path(BLOB), flip_byte)
    edit(held.path(LAYER) / "etc/passwd", flip_byte)
    assert held.verify(How(quick=True)).wrong == 0
    os.truncate(held.path(BLOB), 50)
    found = verdicts(held.verify(How(quick=True)), "wrong")
    assert "50 bytes (expected" in found[BLOB]
    held.path(LAYER).with_name(f"{held.path(LAYER).name}.json").unlink()
    assert "no record" in verdicts(held.verify(How(quick=True)), "wrong")[LAYER]


def test_a_missing_manifest_of_a_name_is_wrong_and_fetched(held: Held) -> None:
    held.path(MANIFEST).unlink()
    assert list(verdicts(held.verify(), "wrong")) == [MANIFEST]
    assert held.verify(How(repair=True)).wrong == 0
    assert held.fetched == [DocumentNeed(NAME.repository, IMAGE.digest)]


def test_a_wrong_blob_leaves_its_layer_unchecked(held: Held) -> None:
    edit(held.path(BLOB), flip_byte)
    report = held.verify()
    assert verdicts(report, "unchecked") == {LAYER: "", COVER: ""}


def test_a_blob_that_no_image_needs_is_removed(held: Held) -> None:
    stray = download(held.storage, b"of no image").path
    edit(stray, flip_byte)
    report = held.verify(How(repair=True))
    assert report.count("repaired") == 1
    assert not stray.exists()


def test_what_was_right_is_skipped_by_the_next_unless_it_changed(held: Held) -> None:
    class Stopped(Exception):
        """As Ctrl-C."""

    def stop(found: object, done: int, total: int) -> None:
        if getattr(found, "what", None) == LAYER:
            raise Stopped

    with pytest.raises(Stopped):
        Verification(held.storage, How()).run(None, stop)
    edit(held.path(BLOB), flip_byte)
    report = held.verify(resume=True)
    assert list(verdicts(report, "wrong")) == [BLOB]
    assert report.resumed >= 3
    assert held.verify(resume=True).resumed == 0


def test_nothing_is_set_aside_while_it_is_checked(held: Held) -> None:
    """Whoever removes it meanwhile would make it look damaged."""
    kept: list[str] = []

    def remove(_: int) -> None:
        done = held.storage.remover.remove([LAYER], lambda: lambda _: "")
        kept.extend(reason for _, reason in done.kept)

    checked = Checker(held.storage, How(), remove).layer(BASE.digest, blob_is_right=True)
    assert checked == Checked("right")
    assert set(kept) == {"somebody works with it"}
    with held_by(held.storage.locks.absence(BASE.digest)):
        report = held.verify()
    assert verdicts(report, "unchecked") == {LAYER: ""}


@contextmanager
def held_by(lock: ByteLock) -> Iterator[None]:
    """Hold a lock for the block."""
    assert lock.try_acquire()
    yield
    lock.release()


def test_what_is_removed_meanwhile_is_no_damage(held: Held) -> None:
    def remove(found: object, _done: int, _total: int) -> None:
        if getattr(found, "what", None) == CONFIG:
            held.path(BLOB).unlink()
            held.storage.discard_layer(TOP.digest)

    for how in (How(), How(repair=True)):
        report = Verification(held.storage, how, fetch=held.fetch).run(None, remove)
        assert report.wrong == report.count("repaired") == 0
        assert held.fetched == []
        held.fetch(BlobNeed(NAME.repository, BASE.descriptor()))
        held.fetched.clear()
        held.storage.extract_layer(TOP.digest, held.storage.layer_tarball_path(TOP.digest))


def test_what_a_power_cut_may_have_hit_is_no_damage(held: Held) -> None:
    for what in (LAYER, COVER):
        record = held.path(what).with_name(f"{held.path(what).name}.json")
        edit(record, lambda raw: raw.replace(boot_id().encode(), b"another"))
    assert verdicts(held.verify(), "wrong", "unchecked") == {LAYER: "", COVER: ""}
    assert held.verify(How(repair=True)).count("repaired") == 2
    assert held.verify().count("right") == 7


def test_records_that_say_nothing_are_named(held: Held) -> None:
    tag = held.storage.images_dir / "refs/registry.example/verify/image:1"
    tag.write_bytes(b"{}")
    held.storage.lease("build", [IMAGE.digest])
    (held.storage.images_dir / "leases/build.json").write_bytes(b"{}")
    report = held.verify()
    assert report.wrong == 2
    assert set(report.records) == {tag, held.storage.images_dir / "leases"}


def test_leftovers_are_named_and_no_damage(held: Held) -> None:
    left = held.storage.images_dir / f"layers/{BASE.digest.name}.tar.gz.{'0' * 32}.downloading"
    left.write_bytes(b"part")
    report = held.verify()
    assert list(report.leftovers) == [left]
    assert report.wrong == 0
