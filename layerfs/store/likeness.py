"""Whether a lazy layer that has become whole is what its TOC says: ``python -m layerfs.store.likeness``.

A TOC and the archive in the same blob are two tellings of one layer, and nothing but this makes them agree:
every entry, every attribute, every byte. In a process of its own, for it reads all files.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import LayerfsError, StoreError
from layerfs.layer.overlayfs import object_of, stub_xattrs
from layerfs.layer.tables import Tables, rows
from layerfs.layer.toc import Content, Piece
from layerfs.oci import Digest
from layerfs.oci.toc import TocKind
from layerfs.processes.once import answer_once, ask_once
from layerfs.store.storage import ImageStorage
from layerfs.store.verify import Comparison, unlimited

SHOWN: Final = 3
"""Differences that are told of one pair."""
_SECOND: Final = 10**9
"""The times of stargz-snapshotter's TOCs have no more, and are rounded."""
_CHUNK: Final = 1 << 20


class _Question(msgspec.Struct, frozen=True):
    store: str
    maker: int | None
    toc: str
    blob: str


class _Answer(msgspec.Struct, frozen=True):
    differences: tuple[str, ...] = ()
    problem: str = ""


def differences(storage: ImageStorage, toc: Digest, blob: Digest) -> tuple[str, ...]:
    """Return the first differences between the layer of *blob* and the skeleton of *toc*, both here.

    Raises NotInStore, StoreError, WorkerDied.
    """
    question = _Question(str(storage.images_dir), storage.maker, str(toc), str(blob))
    raw = ask_once("layerfs.store.likeness", msgspec.json.encode(question))
    answer = msgspec.json.decode(raw, type=_Answer)
    if answer.problem:
        raise StoreError(answer.problem)
    return answer.differences


class _LikeItsToc(Comparison):
    """The files of the skeleton have no bytes: what these must be, its table of contents says."""

    reference = "the TOC"

    def __init__(self, storage: ImageStorage, toc: Digest, untimed: frozenset[bytes]) -> None:
        super().__init__(untimed, unlimited)
        stored = storage.lazy.tocs.find(toc)
        place = stored.place() if stored else None
        self.times_ns = 1 if place and place.toc.kind is TocKind.ZSTD_CHUNKED else _SECOND
        self._storage = storage
        self._toc = toc
        names = stub_xattrs(storage.capabilities.owner)
        self._metacopy, self._redirect = (os.fsencode(name) for name in names)

    def wanted_attributes(self, there: bytes) -> Mapping[bytes, bytes]:
        """Return the attributes that are expected, without those of a stub. Raises OSError."""
        found = super().wanted_attributes(there)
        return {name: value for name, value in found.items() if name not in (self._metacopy, self._redirect)}

    def same_bytes(self, here: bytes, there: bytes) -> bool:
        """Say whether a file holds what the TOC says. Raises OSError."""
        id_ = object_of(super().wanted_attributes(there).get(self._redirect, b""))
        return os.stat(there).st_size == 0 if id_ is None else holds(here, self._content(id_))

    def _content(self, id_: str) -> Content:
        return self._storage.lazy.content(self._toc, id_)


def holds(path: bytes, content: Content) -> bool:
    """Say whether a file has the bytes of *content*: all of one digest, or piece by piece."""
    with open(path, "rb", buffering=0) as file:
        if content.digest:
            wanted = Digest.parse(content.digest)
            hasher = wanted.hasher()
            while data := file.read(_CHUNK):
                hasher.update(data)
            return Digest.finish(wanted.algorithm, hasher) == wanted
        return all(_has_piece(file, piece) for piece in content.pieces) and not file.read(1)


def _has_piece(file: FileIO, piece: Piece) -> bool:
    """Say whether the next bytes of *file* are those of *piece*."""
    hasher, left, is_hole = hashlib.sha256(), piece.size, True
    while left and (data := file.read(min(left, _CHUNK))):
        hasher.update(data)
        is_hole = is_hole and not any(data)
        left -= len(data)
    if left:
        return False
    return is_hole if not piece.digest else f"sha256:{hasher.hexdigest()}" == piece.digest


def _table_differences(found: Tables, expected: Tables) -> Iterator[str]:
    for name in ("whiteouts", "opaques", "implied"):
        one, other = (set(rows(getattr(tables, name))) for tables in (found, expected))
        if one != other:
            first = min(one ^ other).decode("utf-8", "replace")
            yield f"{first or 'the root'}: {name} differ (expected what the TOC says)"


def _compare(question: _Question) -> tuple[str, ...]:
    storage = ImageStorage(question.store, maker=question.maker)
    toc, blob = Digest.parse(question.toc), Digest.parse(question.blob)
    layer, skeleton = storage.open_layer(blob), storage.lazy.open_skeleton_of(toc, blob)
    if layer is None or skeleton is None:
        raise StoreError(f"{blob}: gone, or its skeleton is, before they were compared")
    tables = layer.tables(), skeleton.tables()
    untimed = frozenset(rows(tables[0].implied)) | frozenset(rows(tables[1].implied))
    how = _LikeItsToc(storage, toc, untimed)

    def all_differences() -> Iterator[str]:
        yield from _table_differences(*tables)
        yield from how.of(Path(layer.path), Path(skeleton.path))

    return tuple(islice(all_differences(), SHOWN))


def _answer(raw: bytes) -> bytes:
    try:
        found = _compare(msgspec.json.decode(raw, type=_Question))
    except LayerfsError as exc:
        return msgspec.json.encode(_Answer(problem=str(exc)))
    return msgspec.json.encode(_Answer(found))


if __name__ == "__main__":
    answer_once(_answer)
