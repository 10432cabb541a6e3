"""An archive that ends too early is refused, wherever it ends, and leaves nothing outside.

Between two members no tool of the field can tell (Go's archive/tar, GNU tar): that is an end. So it is in the
padding of the last content, and behind an extended header.
"""

import gzip
import os
from collections.abc import Iterator

import pytest

from tests.bad_layers.arena import Arena
from tests.bad_layers.attack import Attack, directory, hardlink, symlink
from tests.support.rawtar import BLOCK, END, gnu_long, header, member, pax, record

MEMBERS = [
    directory(b"d"),
    member(b"d/file", b"content" * 200),
    pax([(b"path", b"p" * 250 + b"/" + b"q" * 250), (b"mtime", b"1.5")]) + member(b"short", b"x"),
    gnu_long(b"n" * 200) + symlink(b"s", b"d"),
    pax(
        record(b"GNU.sparse.major", b"1")
        + record(b"GNU.sparse.minor", b"0")
        + record(b"GNU.sparse.name", b"sparse")
        + record(b"GNU.sparse.realsize", b"9000")
    )
    + member(b"x", b"1\n8192\n8\n".ljust(BLOCK, b"\0") + b"contents"),
    hardlink(b"h", b"d/file"),
    header(b".wh.gone"),
]
WHOLE = b"".join(MEMBERS) + END


def _ends() -> set[int]:
    """Return where it may end: behind each content, in its padding, behind one block of zeros."""
    found, at = {0, len(WHOLE) - BLOCK, len(WHOLE)}, 0
    while at < len(WHOLE) - len(END):
        content = at + BLOCK + int(WHOLE[at + 124 : at + 135], 8)
        at = content + -content % BLOCK
        found |= set(range(content, at + 1))
    return found


ENDS = _ends()


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(tmp_path_factory.mktemp("truncated"), user=os.geteuid()) as made:
        yield made


def _cut(size: int, blob: bytes) -> Attack:
    return Attack(f"cut at {size}", lambda _: blob)


@pytest.mark.parametrize("size", range(0, len(WHOLE) + 1, BLOCK))
@pytest.mark.parametrize("off", [0, -1, 1], ids=["at", "before", "behind"])
def test_an_archive_cut_at_a_block_is_refused_except_between_members(
    arena: Arena, size: int, off: int
) -> None:
    at = min(max(size + off, 0), len(WHOLE))
    for blob in (WHOLE[:at], gzip.compress(WHOLE[:at])):
        outcome = arena.try_(_cut(at, blob))
        assert outcome.damage == []
        if at in ENDS:
            assert outcome.error == ""
        else:
            assert outcome.error == "InvalidArchive"
            assert outcome.message


@pytest.mark.parametrize("size", range(1, len(gzip.compress(WHOLE)), 7))
def test_a_compressed_archive_cut_anywhere_is_refused(arena: Arena, size: int) -> None:
    outcome = arena.try_(_cut(size, gzip.compress(WHOLE, mtime=0)[:size]))
    assert outcome.error == "InvalidArchive"
    assert outcome.damage == []
