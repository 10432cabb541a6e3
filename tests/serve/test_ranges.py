"""Which bytes are sent: ranges and conditions as RFC 9110 has them."""

from pathlib import Path

import pytest

from layerfs.oci import Digest
from layerfs.serve.ranges import answer
from layerfs.serve.replies import BYTES, Answer, BlobPart, Refused, Served
from layerfs.store.blobs import verified

DIGEST = Digest.of(b"0123456789")
BLOB = Served(DIGEST, BYTES, verified(DIGEST, Path("/blob"), 10))
ETAG = f'"{DIGEST}"'


def bounds(reply: Answer) -> tuple[int, int, int]:
    assert isinstance(reply.body, BlobPart)
    return reply.status, reply.body.start, reply.body.stop


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", (200, 0, 10)),
        ("bytes=0-9", (206, 0, 10)),
        ("bytes=0-", (206, 0, 10)),
        ("bytes=3-5", (206, 3, 6)),
        ("bytes=9-", (206, 9, 10)),
        ("bytes=3-999999999999", (206, 3, 10)),
        ("bytes=-4", (206, 6, 10)),
        ("bytes=-4000", (206, 0, 10)),
        pytest.param("bytes=0-" + "9" * 40, (200, 0, 10), id="more digits than a size has"),
        pytest.param("bytes=5-3", (200, 0, 10), id="ends before it begins: invalid, so ignored"),
        pytest.param("bytes=0-1,3-4", (200, 0, 10), id="several: the whole"),
        pytest.param("bytes=" + "0-1," * 3000, (200, 0, 10), id="thousands: the whole"),
        pytest.param("lines=0-1", (200, 0, 10), id="another unit"),
        pytest.param("bytes=-", (200, 0, 10), id="nothing"),
        pytest.param("bytes=0x0-0x5", (200, 0, 10), id="no decimal numbers"),
    ],
)
def test_a_range_is_a_part(asked: str, expected: tuple[int, int, int]) -> None:
    assert bounds(answer(BLOB, "GET", {"range": asked})) == expected


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=999999999999999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(asked: str) -> None:
    with pytest.raises(Refused, match="10 bytes") as refused:
        answer(BLOB, "GET", {"range": asked})

    assert refused.value.status == 416
    assert ("Content-Range", "bytes */10") in refused.value.headers


def test_a_part_says_which_it_is() -> None:
    assert ("Content-Range", "bytes 3-5/10") in answer(BLOB, "GET", {"range": "bytes=3-5"}).headers


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 206), (f"W/{ETAG}", 200), ('"other"', 200), ("Sat, 28 Nov 2026 03:00:00 GMT", 200)],
)
def test_a_range_of_something_else_is_the_whole(condition: str, status: int) -> None:
    assert answer(BLOB, "GET", {"range": "bytes=3-", "if-range": condition}).status == status


def test_head_has_no_ranges() -> None:
    assert answer(BLOB, "HEAD", {"range": "bytes=3-"}).status == 200


@pytest.mark.parametrize(
    ("known", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), ("*", 304), (f'"a", {ETAG}', 304), ('"a"', 200), (str(DIGEST), 200)],
)
def test_what_is_known_is_not_sent(known: str, status: int) -> None:
    assert answer(BLOB, "GET", {"if-none-match": known}).status == status
