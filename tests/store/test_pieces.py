"""A staged file that is filled in any order: no hole is taken for bytes, and nothing that is here is lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import SizeMismatch, StoreFull
from layerfs.oci import Digest
from layerfs.store import ImageStorage, StagedDownload
from layerfs.store import download as downloads
from layerfs.store.pieces import Pieces

PIECE = 1000
CONTENT = bytes(range(1, 251)) * 42  # without a zero, as holes have
DIGEST = Digest.of(CONTENT)
BOOT = "0b5e4c1e-4d5b-4e0e-8a76-6a3f1c1f2d3e"


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    with ImageStorage(store) as storage:
        yield storage


def staged_of(storage: ImageStorage) -> StagedDownload:
    return storage.stage_layer_download(DIGEST, len(CONTENT), "r.example")


def put(staged: StagedDownload, number: int) -> None:
    """Have one piece there, as several requests do."""
    pieces = staged.scatter(PIECE)
    start, end = pieces.start(number), pieces.end(number)
    os.pwrite(staged.descriptors[0], CONTENT[start:end], start)
    staged.keep((number,))


def test_pieces_that_are_here_are_known_again_and_others_are_not(storage: ImageStorage) -> None:
    with staged_of(storage) as staged:
        for number in (0, 1, 4):
            put(staged, number)
        os.pwrite(staged.descriptors[0], CONTENT[2000:2500], 2000)  # in part
        assert staged.offset == 2000
    with staged_of(storage) as again:
        assert (again.offset, again.pieces and again.pieces.here) == (2000, {0, 1, 4})
        put(again, 3)
        put(again, 2)
        assert again.offset == 5000


def test_nothing_but_later_pieces_is_kept_too(storage: ImageStorage) -> None:
    with staged_of(storage) as staged:
        put(staged, 7)
    with staged_of(storage) as again:
        assert (again.offset, again.pieces and again.pieces.here) == (0, {7})


def test_what_was_here_before_it_was_divided_counts(storage: ImageStorage) -> None:
    with staged_of(storage) as staged:
        staged.write(CONTENT[:2500])
    with staged_of(storage) as staged:
        assert staged.scatter(PIECE).here == {0, 1}
        assert staged.offset == 2500


def test_a_file_with_nothing_ahead_is_a_plain_one_again(storage: ImageStorage) -> None:
    with staged_of(storage) as staged:
        put(staged, 0)
        put(staged, 2)
        staged.settle()
        assert staged.pieces
        staged.grown(1500)  # by one request that was broken off
        staged.settle()
        assert (staged.pieces is not None, staged.offset) == (True, 1500)
        os.pwrite(staged.descriptors[0], CONTENT[1000:2000], 1000)
        staged.grown(2000)
        staged.settle()
        assert staged.offset == 3000
        assert staged.staged_path.read_bytes() == CONTENT[:3000]


def test_a_file_with_holes_is_never_committed(storage: ImageStorage) -> None:
    staged = staged_of(storage)
    put(staged, 1)
    with pytest.raises(SizeMismatch):
        staged.commit_as(DIGEST, len(CONTENT))
    assert storage.open_blob(DIGEST) is None


def test_pieces_make_the_blob(storage: ImageStorage) -> None:
    with staged_of(storage) as staged:
        for number in reversed(range(11)):
            put(staged, number)
        staged.settle()
        assert staged.commit().path.read_bytes() == CONTENT


def test_notes_of_another_boot_are_void(storage: ImageStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes may be lost: what is written of a file and when is the kernel's choice."""
    with staged_of(storage) as staged:
        put(staged, 0)
    monkeypatch.setattr(downloads, "boot_id", lambda: BOOT)
    with staged_of(storage) as again:
        assert (again.offset, again.pieces) == (0, None)


def test_a_killed_process_leaves_what_it_noted(storage: ImageStorage) -> None:
    pid = os.fork()
    if pid == 0:
        staged = staged_of(storage)
        put(staged, 0)
        put(staged, 3)
        os.pwrite(staged.descriptors[0], CONTENT[1000:1999], 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with staged_of(storage) as again:
        assert (again.offset, again.pieces and again.pieces.here) == (1000, {0, 3})


@pytest.mark.parametrize("step", ["scatter", "keep"])
def test_a_full_disk_ends_it_and_leaves_no_file(
    storage: ImageStorage, store: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(fd: int, data: bytes, offset: int) -> None:
        raise OSError(28, os.strerror(28))

    def fill() -> None:
        with staged_of(storage) as staged:
            if step == "keep":
                staged.scatter(PIECE)
            monkeypatch.setattr(downloads, "write_all_at", full)
            put(staged, 0)

    with pytest.raises(StoreFull):
        fill()
    assert list(store.rglob("*.downloading")) == []


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(lambda notes: notes[:-1], id="cut"),
        pytest.param(lambda notes: notes + b"\1", id="longer"),
        pytest.param(lambda notes: b"x" + notes[1:], id="no magic"),
        pytest.param(lambda notes: bytes(len(notes)), id="zeros"),
        pytest.param(lambda notes: b"", id="none"),
        pytest.param(lambda notes: notes[:24] + bytes(8) + notes[32:], id="pieces of no bytes"),
    ],
)
def test_what_are_no_notes_is_not_believed(spoiled: object) -> None:
    notes = Pieces.of(len(CONTENT), PIECE, {0, 3}).notes(BOOT)
    assert Pieces.parse(notes, len(CONTENT), BOOT) == Pieces(len(CONTENT), PIECE, {0, 3})
    assert Pieces.parse(spoiled(notes), len(CONTENT), BOOT) is None  # type: ignore[operator]
    assert Pieces.parse(notes, len(CONTENT) + 1, BOOT) is None


@given(size=st.integers(1, 300), piece=st.integers(1, 50), here=st.sets(st.integers(0, 299)))
def test_the_front_has_all_bytes_before_it(size: int, piece: int, here: set[int]) -> None:
    pieces = Pieces.of(size, piece)
    pieces.here.update(number for number in here if number < pieces.count)
    held = {byte for number in pieces.here for byte in range(pieces.start(number), pieces.end(number))}
    front = pieces.front(0)
    assert set(range(front)) <= held
    assert front == size or front not in held
    assert pieces.is_straight(front) == (held == set(range(front)))
    assert pieces.complete(0, front) == sorted(n for n in range(pieces.count) if pieces.end(n) <= front)
