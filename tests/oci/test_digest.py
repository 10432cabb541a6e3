"""Digests: one form of text, one file name, one short name."""

import hashlib
import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import DigestMismatch, InvalidDigest, LayerfsError, SizeMismatch
from layerfs.oci import Digest
from tests.oci.strategies import digests

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(digests)
def test_text_and_file_name_lead_back(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert Digest.from_name(digest.name) == digest


@given(st.binary(max_size=100), st.lists(st.integers(0, 100)))
def test_any_chunking_hashes_the_same(content: bytes, cuts: list[int]) -> None:
    hasher = Digest.of(b"").hasher()
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for start, end in pairwise(edges):
        hasher.update(content[start:end])
    assert Digest.finish("sha256", hasher) == Digest.of(content)
    assert str(Digest.of(content)) == f"sha256:{hashlib.sha256(content).hexdigest()}"


@given(st.text())
def test_text_is_a_digest_or_refused(text: str) -> None:
    for read in (Digest.parse, Digest.from_name):
        try:
            digest = read(text)
        except InvalidDigest:
            continue
        assert text in (str(digest), digest.name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        EMPTY,
        f"sha256:{EMPTY.upper()}",
        f"SHA256:{EMPTY}",
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY[:-1]}g",
        f"sha256:{EMPTY[:-1]}\u0660",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"sha256: {EMPTY[:-1]}",
        f"sha256-{EMPTY}",
        f"sha512:{EMPTY}",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha384:" + 96 * "0",
        "blake3:" + 64 * "0",
        f"../sha256:{EMPTY}",
        f"sha256+b64:{EMPTY}",
    ],
)
def test_what_is_no_supported_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest, match="expected sha256"):
        Digest.parse(text)


@pytest.mark.parametrize(
    "name", ["", "-", f"sha256:{EMPTY}", f"sha256--{EMPTY}", EMPTY, f"sha256-{EMPTY}.json"]
)
def test_a_digest_has_only_one_file_name(name: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.from_name(name)


@given(digests, digests)
def test_short_names_are_short_safe_and_different(one: Digest, other: Digest) -> None:
    assert len(one.short_id) == 26
    assert one.short_id.isalnum()
    assert one.short_id == one.short_id.lower()
    assert (one.short_id == other.short_id) == (one == other)
    assert len(one.object_id) == 22
    assert set(one.object_id) <= set(string.ascii_letters + string.digits + "-_")
    assert (one.object_id == other.object_id) == (one == other)


def test_an_endless_text_is_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidDigest) as caught:
        Digest.parse("x" * 1_000_000)
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=100))
def test_the_right_bytes_pass(content: bytes) -> None:
    for algorithm in ("sha256", "sha512"):
        wanted = Digest.of(content, algorithm)
        wanted.check(content, "thing")
        wanted.check(content, "thing", size=len(content))


@pytest.mark.parametrize(
    ("content", "size", "error", "text"),
    [
        pytest.param(b"abcd", 3, SizeMismatch, r"thing: 4 bytes \(expected 3\)", id="one byte too many"),
        pytest.param(b"ab", 3, SizeMismatch, r"thing: 2 bytes \(expected 3\)", id="truncated"),
        pytest.param(b"abd", 3, DigestMismatch, r"thing: .* sha256:.* \(expected sha256:", id="others"),
        pytest.param(b"ab", None, DigestMismatch, "thing: the bytes hash to sha256:", id="of unknown size"),
    ],
)
def test_other_bytes_are_refused(
    content: bytes, size: int | None, error: type[LayerfsError], text: str
) -> None:
    with pytest.raises(error, match=text):
        Digest.of(b"abc").check(content, "thing", size=size)
