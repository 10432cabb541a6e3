import hashlib
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import SizeMismatch
from layerfs.store import HashingWriter


class Stingy:
    """Takes at most so many bytes at once; fails when *room* is used up."""

    def __init__(self, at_once: int, room: int = 1 << 30) -> None:
        self.at_once = at_once
        self.room = room
        self.taken = bytearray()

    def write(self, data: bytes | memoryview, /) -> int:
        part = bytes(data[: min(self.at_once, self.room)])
        if not part:
            raise OSError(28, "No space left on device")
        self.room -= len(part)
        self.taken += part
        return len(part)


@given(
    content=st.binary(max_size=4096),
    cuts=st.lists(st.integers(0, 4096)),
    at_once=st.integers(1, 500),
    algorithm=st.sampled_from(["sha256", "sha512"]),
)
def test_any_chunking_into_any_writer_gives_hash_and_count(
    content: bytes, cuts: list[int], at_once: int, algorithm: str
) -> None:
    inner = Stingy(at_once)
    writer = HashingWriter(inner, algorithm)
    edges = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
    for start, end in itertools.pairwise(edges):
        assert writer.write(content[start:end]) == end - start
    returned, hex_, count = writer.finalize()
    assert returned is inner
    assert bytes(inner.taken) == content
    assert (hex_, count) == (hashlib.new(algorithm, content).hexdigest(), len(content))


@given(content=st.binary(min_size=1, max_size=300), room=st.integers(0, 299), at_once=st.integers(1, 64))
def test_bytes_that_were_not_accepted_are_neither_hashed_nor_counted(
    content: bytes, room: int, at_once: int
) -> None:
    inner = Stingy(at_once, room)
    writer = HashingWriter(inner)
    if room < len(content):
        with pytest.raises(OSError, match="No space"):
            writer.write(content)
    else:
        writer.write(content)
    _, hex_, count = writer.finalize()
    assert count == len(inner.taken)
    assert hex_ == hashlib.sha256(inner.taken).hexdigest()


def test_the_first_excess_byte_is_refused_and_not_written() -> None:
    inner = io.BytesIO()
    writer = HashingWriter(inner, limit=3)
    writer.write(b"ab")
    with pytest.raises(SizeMismatch, match="expected 3"):
        writer.write(b"cd")
    assert inner.getvalue() == b"ab"
    assert writer.write(b"c") == 1


def test_a_writer_that_takes_nothing_is_an_error_not_a_loop() -> None:
    class Full:
        def write(self, data: bytes | memoryview, /) -> int | None:
            return None

    with pytest.raises(OSError, match="no more bytes"):
        HashingWriter(Full()).write(b"x")


def test_it_takes_whatever_holds_bytes() -> None:
    inner = io.BytesIO()
    writer = HashingWriter(inner)
    writer.write(bytearray(b"a"))
    writer.write(memoryview(b"b"))
    assert writer.finalize() == (inner, hashlib.sha256(b"ab").hexdigest(), 2)
