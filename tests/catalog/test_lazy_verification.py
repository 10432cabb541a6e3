"""Lazy layers in a verification: a skeleton against its TOC, files that are here against their digests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerfs.catalog.verification import Report, Verification
from layerfs.oci import Digest
from layerfs.oci.reference import ImageReference
from layerfs.store import ImageStorage
from layerfs.store.checking import How
from layerfs.store.stock import Stored
from tests.gc.test_lazy import have
from tests.support.images import directory, file, image, tar
from tests.support.tocs import estargz

pytestmark = [pytest.mark.needs_root, pytest.mark.allow_warnings]

LAYER = estargz(tar([directory("etc"), file("etc/a", b"content"), file("etc/b", b"other")]), chunk=4)
IMAGE = image(LAYER.built)
NAME = ImageReference.parse("registry.example/verify/lazy:1")
TOC = LAYER.place.digest
SKELETON = Stored("skeleton", TOC)
OBJECT = Digest.of(b"content").object_id


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    with ImageStorage(store) as storage:
        storage.save_manifest(IMAGE.manifest, IMAGE.digest)
        storage.save_config(IMAGE.config, IMAGE.config_digest)
        storage.refs.write(NAME, IMAGE.digest)
        have(storage, LAYER)
        content = storage.lazy.content(TOC, OBJECT)
        with storage.lazy.objects.stage(content) as staged:
            for piece, data in zip(content.pieces, (b"cont", b"ent"), strict=True):
                staged.write(piece, data)
            staged.commit()
        yield storage


def verify(storage: ImageStorage, how: How = How()) -> Report:  # noqa: B008 - frozen
    """Verify all of it."""
    work = Verification(storage, how, fetch=lambda need: pytest.fail(f"asked for {need}"))
    return work.run(None, lambda _found, _done, _total: None)


def verdict(report: Report) -> tuple[str, str]:
    """Return what was found of the skeleton."""
    found = next(one.checked for one in report.findings if one.what == SKELETON)
    return found.verdict, " | ".join(found.problems)


def test_a_sound_lazy_layer_is_right(storage: ImageStorage) -> None:
    report = verify(storage)
    assert verdict(report) == ("right", "")
    assert report.wrong == 0
    assert verdict(verify(storage, How(quick=True))) == ("right", "")


def change_object(storage: ImageStorage) -> None:
    found = storage.lazy.objects.find(OBJECT)
    assert found is not None
    status = found.path.stat()
    found.path.write_bytes(b"CONTENT")
    os.utime(found.path, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_mode(storage: ImageStorage) -> None:
    (storage.images_dir / "skeletons" / TOC.name / "etc/a").chmod(0o777)


def change_redirect(storage: ImageStorage) -> None:
    stub = storage.images_dir / "skeletons" / TOC.name / "etc/a"
    os.setxattr(stub, "trusted.overlay.redirect", b"/etc/shadow")


def write_into_stub(storage: ImageStorage) -> None:
    stub = storage.images_dir / "skeletons" / TOC.name / "etc/a"
    status = stub.stat()
    stub.write_bytes(b"CONTENT")
    os.utime(stub, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_table(storage: ImageStorage) -> None:
    record = storage.lazy.skeletons.record_path(TOC)
    record.write_bytes(record.read_bytes().replace(b"content", b"CONTENT").replace(b",5,[[", b",6,[["))


def change_toc(storage: ImageStorage) -> None:
    toc = storage.images_dir / "tocs" / TOC.name / "toc"
    raw = bytearray(toc.read_bytes())
    raw[len(raw) // 2] ^= 1
    toc.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(change_object, f"object {OBJECT}: other bytes", id="a file that is here"),
        pytest.param(change_mode, "etc/a: mode 0777 (expected 0644)", id="a mode"),
        pytest.param(change_redirect, "etc/a: other extended attributes", id="where a stub leads to"),
        pytest.param(write_into_stub, "etc/a: other bytes", id="bytes in a stub"),
        pytest.param(change_table, "lists something else", id="where the bytes are in the blob"),
        pytest.param(change_toc, "its TOC is not what it was", id="the TOC"),
    ],
)
def test_damage_is_found_named_and_taken_away(
    storage: ImageStorage, damage: Callable[[ImageStorage], None], says: str
) -> None:
    damage(storage)

    found, problem = verdict(verify(storage))
    assert found == "wrong"
    assert says in problem

    found, problem = verdict(verify(storage, How(repair=True)))
    assert found == "repaired"
    assert says in problem
    again = verify(storage)
    assert again.wrong == 0
    if damage is change_toc:
        assert storage.lazy.open_skeleton(TOC) is None
        assert storage.lazy.tocs.find(TOC) is None
    else:
        assert verdict(again) == ("right", "")
    assert (storage.lazy.objects.find(OBJECT) is None) == (damage is change_object)
