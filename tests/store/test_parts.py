"""Parts of blobs: kept whole or not at all, told apart by blob and source, swept as downloads are."""

import os
from pathlib import Path

from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.parts import Part, PartShelf

BLOB = Digest.of(b"blob")
OTHER = Digest.of(b"other")


def spans(parts: list[Part]) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in parts]


def keep(shelf: PartShelf, digest: Digest, source: str, start: int, data: bytes) -> Part:
    with shelf.stage(digest, source, start, start + len(data)) as staged:
        os.write(staged.fd, data)
        return staged.commit()


def test_parts_are_kept_by_blob_and_source(tmp_path: Path) -> None:
    storage = ImageStorage(tmp_path)
    shelf = storage.parts
    keep(shelf, BLOB, "one", 30, b"abcd")
    keep(shelf, BLOB, "one", 10, b"efg")
    keep(shelf, BLOB, "two", 0, b"x")
    keep(shelf, OTHER, "one", 5, b"y")
    found = ImageStorage(tmp_path).parts.of(BLOB, "one")
    assert spans(found) == [(10, 13), (30, 34)]
    assert found[1].read(31, 33) == b"bc"
    shelf.discard(BLOB, "one")
    assert spans(shelf.of(BLOB, "one")) == []
    assert spans(shelf.of(BLOB, "two")) == [(0, 1)]
    shelf.discard(BLOB)
    assert spans(shelf.of(BLOB, "two")) == []
    assert spans(shelf.of(OTHER, "one")) == [(5, 6)]


def test_one_that_was_cut_is_none(tmp_path: Path) -> None:
    shelf = ImageStorage(tmp_path).parts
    part = keep(shelf, BLOB, "one", 0, b"abcd")
    os.truncate(part.path, 2)
    assert shelf.of(BLOB, "one") == []


def test_they_are_swept_as_downloads_are(tmp_path: Path) -> None:
    storage = ImageStorage(tmp_path)
    part = keep(storage.parts, BLOB, "one", 0, b"abcd")
    assert storage.sweep().total == 0
    os.utime(part.path, (0, 0))
    assert storage.sweep().downloads == 1
    assert not part.path.exists()


def test_one_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    storage = ImageStorage(tmp_path)
    with storage.parts.stage(BLOB, "one", 0, 4) as staged:
        os.write(staged.fd, b"ab")
    assert list((tmp_path / "layers").iterdir()) == []
