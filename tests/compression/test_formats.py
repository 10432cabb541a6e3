"""Compressions: the bytes decide, several members are one stream, and what stops early is refused."""

import bz2
import gc
import gzip
import io
import lzma
import random
import weakref
from contextlib import closing

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from layerfs.compression import FORMATS, Stream, sniff
from layerfs.compression.faults import judged
from layerfs.compression.zstd import FrameScanner
from layerfs.errors import InvalidArchive, OutOfMemory
from tests.support.images import Compression, compress

TEXT = random.Random(1).randbytes(200_000) + bytes(300_000)
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
COMPRESSED: tuple[Compression, ...] = ("gzip", "zstd", "bzip2", "xz")


def _unpack(blob: bytes, step: int = 70_000) -> bytes:
    stream = sniff(blob[:8]).open(io.BytesIO(blob))
    buffer = memoryview(bytearray(step))
    unpacked = b""
    while size := stream.readinto(buffer):
        unpacked += buffer[:size]
    return unpacked


def _zstd(text: bytes, **parameters: int | bool) -> bytes:
    return zstandard.ZstdCompressor(**parameters).compress(text)  # type: ignore[arg-type]


ACCEPTED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "gzip of several members": b"".join(
        gzip.compress(TEXT[at : at + 99_999]) for at in range(0, 500_000, 99_999)
    ),
    "gzip with an empty member": gzip.compress(b"") + gzip.compress(TEXT) + gzip.compress(b""),
    "gzip with zeros behind it": gzip.compress(TEXT) + bytes(1000),
    "zstd": _zstd(TEXT),
    "zstd with a checksum": _zstd(TEXT, write_checksum=True),
    "zstd of unknown size": _zstd(TEXT, write_content_size=False),
    "zstd of several frames": _zstd(TEXT[:1000]) + _zstd(TEXT[1000:]),
    "zstd with an empty frame": _zstd(b"") + _zstd(TEXT) + _zstd(b""),
    "zstd with skippable frames": SKIPPABLE
    + _zstd(TEXT[:9])
    + SKIPPABLE
    + SKIPPABLE
    + _zstd(TEXT[9:])
    + SKIPPABLE,
    "bzip2": bz2.compress(TEXT),
    "bzip2 of several streams": bz2.compress(TEXT[:1000]) + bz2.compress(TEXT[1000:]),
    "xz": lzma.compress(TEXT, preset=1),
    "xz of several streams with padding": lzma.compress(TEXT[:9])
    + bytes(8)
    + lzma.compress(TEXT[9:])
    + bytes(4),
}


@pytest.mark.parametrize("blob", ACCEPTED.values(), ids=list(ACCEPTED))
@pytest.mark.parametrize("step", [4096, 70_000, 1 << 20])
def test_what_the_field_writes_is_unpacked(blob: bytes, step: int) -> None:
    assert _unpack(blob, step) == TEXT


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("cut", [1, 3, 4, 9, 1000, 100_000])
def test_a_truncated_stream_is_refused(compression: Compression, cut: int) -> None:
    with pytest.raises(InvalidArchive):
        _unpack(compress(TEXT, compression)[:-cut])


@pytest.mark.parametrize("compression", COMPRESSED)
def test_garbage_behind_a_stream_is_refused(compression: Compression) -> None:
    with pytest.raises(InvalidArchive):
        _unpack(compress(TEXT, compression) + b"garbage")


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_damaged_stream_is_refused(compression: Compression) -> None:
    blob = bytearray(compress(TEXT, compression))
    blob[len(blob) // 2] ^= 0x10
    if compression == "zstd":
        blob = bytearray(_zstd(TEXT, write_checksum=True))
        blob[-2] ^= 1

    with pytest.raises(InvalidArchive):
        _unpack(bytes(blob))


def test_a_zstd_frame_that_stops_at_a_block_is_refused() -> None:
    frame = _zstd(TEXT, write_content_size=False)
    scanner = FrameScanner()
    cuts = []
    for at in range(len(frame)):
        scanner.feed(frame[at : at + 1])
        cuts.append(scanner.at_boundary)

    assert cuts == [False] * (len(frame) - 1) + [True]


@given(cuts=st.lists(st.integers(0, 5000), max_size=8).map(sorted))
def test_frames_are_followed_however_they_are_cut(cuts: list[int]) -> None:
    text = TEXT[:4000]
    blob = SKIPPABLE + _zstd(text) + _zstd(text, write_checksum=True) + SKIPPABLE
    scanner = FrameScanner()

    for start, end in zip([0, *cuts], [*cuts, len(blob)], strict=True):
        scanner.feed(blob[start:end])

    assert scanner.at_boundary


@pytest.mark.parametrize("bits", [27, 28])
def test_zstd_windows_have_a_limit(bits: int) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=bits, compression_level=1)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = writer.compress(TEXT) + writer.flush()

    if bits <= 27:
        assert _unpack(blob) == TEXT
    else:
        with pytest.raises(InvalidArchive, match="zstd"):
            _unpack(blob)


def test_xz_has_a_memory_limit() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]

    with pytest.raises(InvalidArchive, match="xz"):
        _unpack(lzma.compress(TEXT, filters=filters))


def test_every_format_is_tried() -> None:
    assert {each.name for each in FORMATS} == set(COMPRESSED)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_what_is_too_short_to_be_compressed_is_plain(size: int) -> None:
    assert _unpack(b"\x1f\x8c\0\0\0"[:size]) == b"\x1f\x8c\0\0\0"[:size]


def test_a_gzip_header_that_is_longer_than_the_buffer_is_refused() -> None:
    """The library raises OverflowError for it."""
    named = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (1 << 20) + b"\0" + gzip.compress(TEXT)[10:]

    with pytest.raises(InvalidArchive, match="gzip"):
        _unpack(named)


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_decoder_is_freed_by_ownership(compression: Compression) -> None:
    """A circle through the decoder would keep its window, up to 128 MiB, in a warm worker."""
    blob = compress(TEXT, compression)
    source = io.BytesIO(blob)
    gc.disable()
    try:
        stream = sniff(blob[:8]).open(source)
        gone = weakref.ref(source)  # which the decoder holds
        stream.readinto(memoryview(bytearray(10)))
        del source
        assert gone() is not None
        stream.close()
        assert gone() is None
    finally:
        gc.enable()


class _Ends:
    """Compressed bytes whose disk fails in the middle."""

    def __init__(self, blob: bytes) -> None:
        self._rest = io.BytesIO(blob)

    def read(self, size: int, /) -> bytes:
        data = self._rest.read(min(size, 50_000))
        if not data:
            raise SourceFailed
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _error_of(stream: Stream, buffer: memoryview) -> Exception:
    try:
        while stream.readinto(buffer):
            pass
    except (InvalidArchive, SourceFailed) as exc:
        return exc
    raise AssertionError("the stream is sound")


class SourceFailed(Exception):
    """What the source of the bytes raises."""


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("error", [InvalidArchive, SourceFailed])
def test_an_error_that_is_kept_keeps_no_decoder(compression: Compression, error: type[Exception]) -> None:
    blob = compress(TEXT, compression)[:-1000]
    buffer = memoryview(bytearray(1000))
    gc.disable()
    try:
        source = io.BytesIO(blob) if error is InvalidArchive else _Ends(blob)
        with closing(sniff(blob[:8]).open(source)) as stream:
            gone = weakref.ref(source)  # which the decoder holds
            kept = _error_of(stream, buffer)
        del stream, source
        assert isinstance(kept, error)
        assert kept.__traceback__ is not None
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("compression", COMPRESSED)
def test_lack_of_memory_in_a_decoder_is_told_from_bad_bytes(compression: Compression) -> None:
    lacking = (
        MemoryError(),
        zstandard.ZstdError("zstd decompress error: Allocation error : not enough memory"),
    )

    assert all(isinstance(judged(exc, compression), OutOfMemory) for exc in lacking)
    assert isinstance(judged(OverflowError("header too long"), compression), InvalidArchive)
