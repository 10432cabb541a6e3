"""Parts of a blob to the bytes of a file: formats, pieces in several parts, skips, caps, bytes that lie."""

import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard

from layerfs.extract.job import Failed, Listed, PartHere, Unpacked, UnpackJob
from layerfs.extract.unpacking import run
from layerfs.layer.toc import Content, Piece
from layerfs.oci import Digest

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}


def piece(offset: int, end: int, size: int, *, skip: int = 0, start: int = 0, hole: bool = False) -> Piece:
    return Piece(offset, end, skip, start, size, "" if hole else "sha256:" + "0" * 64)


def unpack(held: list[PartHere], *pieces: Piece) -> tuple[bytes, Unpacked | Failed]:
    said: list[bytes] = []

    def relay(message: bytes) -> None:
        said.append(msgspec.json.decode(message, type=Listed).piece)

    content = Content("", sum(one.size for one in pieces), list(pieces))
    answer = run(UnpackJob(digest=str(Digest.of(b"")), contents=(content,), held=tuple(held)), relay)
    return b"".join(said), answer


@pytest.mark.parametrize("name", COMPRESS)
def test_pieces_lie_anywhere_in_the_blob(name: str, tmp_path: Path) -> None:
    one, two = COMPRESS[name](b"header" + b"a" * 3_000_000), COMPRESS[name](b"bb" * 10)
    blob = b"x" * 100 + one + b"y" * 50 + two + b"z"
    cut = 100 + len(one) // 2
    (tmp_path / "1").write_bytes(blob[:cut])
    (tmp_path / "2").write_bytes(blob[cut:])
    held = [PartHere(cut, len(blob), str(tmp_path / "2")), PartHere(0, cut, str(tmp_path / "1"))]
    second = 100 + len(one) + 50
    said, answer = unpack(
        held,
        piece(100, 100 + len(one), 3_000_000, skip=6),
        piece(0, 0, 4096, start=3_000_000, hole=True),
        piece(second, second + len(two), 20, start=3_004_096),
    )
    assert said == b"a" * 3_000_000 + b"b" * 20
    assert answer == Unpacked()


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize(
    ("size", "skip", "damage", "message"),
    [
        pytest.param(11, 0, None, "hold less than the TOC says", id="too short"),
        pytest.param(1, 10, None, "hold less than the TOC says", id="all passed over"),
        pytest.param(10, 0, 12, "", id="damaged"),
        pytest.param(10, 0, 0, "hold less than the TOC says", id="not compressed"),
    ],
)
def test_bytes_that_are_not_what_the_toc_says(
    name: str, size: int, skip: int, damage: int | None, message: str, tmp_path: Path
) -> None:
    blob = bytearray(COMPRESS[name](b"0123456789"))
    if damage is not None:
        blob[damage:] = b"\xff" * (min(len(blob), 9) - min(damage, 9) or 1)
    (tmp_path / "1").write_bytes(blob)
    _, answer = unpack([PartHere(0, len(blob), str(tmp_path / "1"))], piece(0, len(blob), size, skip=skip))
    assert isinstance(answer, Failed)
    assert answer.error == "InvalidArchive"
    assert message in answer.message


def test_no_more_is_made_than_the_toc_says(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    (tmp_path / "1").write_bytes(bomb)
    said, answer = unpack([PartHere(0, len(bomb), str(tmp_path / "1"))], piece(0, len(bomb), 10))
    assert (said, answer) == (bytes(10), Unpacked())


def test_bytes_that_are_not_here(tmp_path: Path) -> None:
    part = gzip.compress(b"0123456789")
    (tmp_path / "1").write_bytes(part[:-14])
    held = [PartHere(0, len(part) - 14, str(tmp_path / "1"))]
    _, answer = unpack(held, piece(0, len(part), 10))
    assert isinstance(answer, Failed)
    assert "is not here" in answer.message
    _, answer = unpack([PartHere(0, len(part), str(tmp_path / "1"))], piece(0, len(part), 10))
    assert isinstance(answer, Failed)
    assert "shorter than it was" in answer.message
    assert answer.error == "StoreError"
