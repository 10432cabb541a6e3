"""Random archives are read as GNU tar, bsdtar and umoci do, but for what docs/compatibility.md lists."""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tests.extract.extracting import Extract
from tests.peers.differences import DIFFERENCES, EXCUSED, Peer, table
from tests.peers.readers import PEERS, differences, read_by_layerfs
from tests.support.random_archives import RARE, RandomArchive, random_archive
from tests.support.spellings import ENDS, SPELLINGS

_ROOT = Path(__file__).parents[2]
_QUICK = [range(start, start + 100) for start in range(0, 500, 100)]
_LONG = [range(start, start + 500) for start in range(0, 10_000, 500)]
_UMOCI_EACH = 4
"""umoci takes longer than all others together."""


def judged(archive: RandomArchive, *, all_peers: bool) -> list[Peer]:
    """Return the tools that must make of *archive* what layerfs makes of it."""
    peers = [peer for peer in PEERS if not archive.shapes & EXCUSED[peer]]
    return [peer for peer in peers if peer != "umoci" or all_peers or archive.number % _UMOCI_EACH == 0]


def compared(extract: Extract, archive: RandomArchive, peers: list[Peer]) -> list[str]:
    """Read *archive* by layerfs and by *peers*; say what differs."""
    base = extract.directory / f"archive-{archive.number}"
    base.mkdir()
    ours = read_by_layerfs(Extract(extract.pool, base), archive.content)
    found = []
    for peer in peers:
        lines = differences(ours, peer, PEERS[peer](base, archive.content))
        if lines:
            found += [f"random_archive({archive.number}) has {sorted(archive.shapes)}", *lines]
    shutil.rmtree(base)
    return found


def check(extract: Extract, numbers: range, *, all_peers: bool) -> None:
    work = [(archive, judged(archive, all_peers=all_peers)) for archive in map(random_archive, numbers)]
    with ThreadPoolExecutor(2) as threads:
        found = [*threads.map(lambda pair: compared(extract, *pair), work)]

    assert not any(found), "\n".join(line for lines in found for line in lines)
    counts = Counter(peer for _, peers in work for peer in peers)
    assert counts["GNU tar"] > len(numbers) // 3 < counts["bsdtar"]
    assert counts["umoci"] > len(numbers) // 3 // (1 if all_peers else _UMOCI_EACH)


@pytest.mark.needs_root
@pytest.mark.parametrize("numbers", _QUICK, ids=str)
def test_random_archives_are_read_as_the_tools_of_the_field_read_them(
    extract: Extract, numbers: range
) -> None:
    check(extract, numbers, all_peers=False)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.needs_root
@pytest.mark.parametrize("numbers", _LONG, ids=str)
def test_ten_thousand_random_archives_are_read_so(extract: Extract, numbers: range) -> None:
    check(extract, numbers, all_peers=True)


_UNUSUAL = {shape for row in DIFFERENCES for shape in row.shapes}


def test_rows_name_shapes_that_there_are() -> None:
    made = frozenset().union(*(random_archive(number).shapes for number in range(2000)))

    assert made >= RARE.keys() | SPELLINGS.keys() | ENDS.keys() | _UNUSUAL


@cache
def _shapes() -> list[frozenset[str]]:
    return [random_archive(number).shapes for number in range(20_000)]


def having_alone(shape: str, peer: Peer) -> Iterator[RandomArchive]:
    """Yield random archives in which nothing else excuses *peer*."""
    for number, shapes in enumerate(_shapes()):
        if shapes & EXCUSED[peer] == {shape}:
            yield random_archive(number)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.needs_root
def test_tools_differ_where_a_row_says_so(extract: Extract) -> None:
    for shape, peers in [(shape, row.peers) for row in DIFFERENCES for shape in row.shapes]:
        tried = (
            compared(extract, archive, [peer])
            for peer in peers
            for archive in itertools.islice(having_alone(shape, peer), 300)
        )
        assert any(tried), f"{peers} read {shape!r} as we do"


def test_the_document_has_the_differences_of_the_tools() -> None:
    text = (_ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")

    assert table() in text, f"docs/compatibility.md lacks this table:\n\n{table()}"
