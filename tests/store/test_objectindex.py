"""Which objects a skeleton names, and what lies where in its blob: looked up in memory."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from layerfs.errors import NotInStore
from layerfs.layer.contents import Read, content_row, contents_by_id
from layerfs.layer.toc import Content, Piece
from layerfs.oci import Digest
from layerfs.store.objectindex import ObjectIndexes

TOC = Digest.of(b"toc")


def content(number: int, count: int = 1) -> Content:
    """Return a content of *count* pieces, 100 bytes of the blob each, a hole between them."""
    pieces = [
        Piece(number * 1000 + 100 * one, number * 1000 + 100 * one + 100, 0, 20 * one, 10, str(TOC))
        for one in range(count)
    ]
    holes = [Piece(0, 0, 0, 20 * one + 10, 10, "") for one in range(count)]
    digest = str(Digest.of(b"%d" % number))
    return Content(digest, 20 * count, sorted(pieces + holes, key=lambda piece: piece.start))


class Skeletons:
    """Tables of skeletons in memory, and how often one was opened."""

    def __init__(self, *contents: Content) -> None:
        self.identity: object = "first"
        self.opened = 0
        rows = contents_by_id((one.id, one) for one in contents)
        self.table = b"".join(content_row(*row) for row in rows)
        self.indexes = ObjectIndexes(self.open, lambda toc: self.identity if toc == TOC else None)

    @contextmanager
    def open(self, toc: Digest) -> Iterator[tuple[Read, int]]:
        if toc != TOC or self.identity is None:
            raise NotInStore("no such skeleton")
        self.opened += 1
        yield lambda offset, length: self.table[offset : offset + length], len(self.table)


def test_names_are_known_once_they_were_read_and_nothing_is_read_again() -> None:
    contents = [content(number) for number in range(500)]
    skeletons = Skeletons(*contents)
    names = skeletons.indexes.names
    assert names(TOC, contents[0].id) is None
    skeletons.indexes.load(TOC)
    assert all(names(TOC, one.id) for one in contents)
    assert not any(names(TOC, content(number).id) for number in range(500, 900))
    assert names(TOC, "-" * 22) is names(TOC, "z" * 22) is False
    skeletons.indexes.load(TOC)
    assert skeletons.opened == 1


def test_what_was_known_goes_with_the_skeleton() -> None:
    one, two = content(1), content(2)
    skeletons = Skeletons(one)
    skeletons.indexes.load(TOC)
    skeletons.identity = None
    assert skeletons.indexes.names(TOC, one.id) is False
    assert not skeletons.indexes._known
    skeletons.identity, skeletons.table = "second", content_row(two.id, two)
    assert skeletons.indexes.names(TOC, two.id) is None
    skeletons.indexes.load(TOC)
    assert skeletons.indexes.names(TOC, two.id) is True
    assert skeletons.indexes.names(TOC, one.id) is False


def test_a_skeleton_that_cannot_be_read_names_nothing_and_is_not_asked_again() -> None:
    skeletons = Skeletons()
    skeletons.indexes.load(Digest.of(b"other"))
    assert skeletons.indexes.names(Digest.of(b"other"), content(1).id) is False


@pytest.mark.parametrize("count", [1, 3])
def test_contents_are_found_by_where_their_bytes_begin(count: int) -> None:
    contents = [content(number, count) for number in range(100)]
    hole = Content(str(Digest.of(b"hole")), 10, [Piece(0, 0, 0, 0, 10, "")])
    indexes = Skeletons(*contents, hole).indexes
    assert indexes.number_after(TOC, 0, 1 << 40) is None
    assert list(indexes.after(TOC, 0, 1 << 40)) == contents
    assert [indexes.number_after(TOC, *span) for span in [(0, 1 << 40), (5000, 8000), (7, 7)]] == [100, 3, 0]
    assert list(indexes.after(TOC, 5000, 8000)) == contents[5:8]
    assert list(indexes.after(TOC, 5001, 8001)) == contents[6:9]
    assert not list(indexes.after(TOC, 7, 7))


def test_sixty_thousand_files_cost_a_few_megabytes() -> None:
    skeletons = Skeletons(*(content(number) for number in range(60_000)))
    wanted = content(59_999).id
    tracemalloc.start()
    try:
        skeletons.indexes.load(TOC)
        assert skeletons.indexes.names(TOC, wanted)
        assert len(list(skeletons.indexes.after(TOC, 10**6, 10**6 + 50_000))) == 50
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 << 20, "22 and 16 bytes a file"
    assert most < 30 << 20
