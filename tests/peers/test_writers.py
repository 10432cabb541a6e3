"""What the programs of the field archive comes out of layerfs as it was: random trees by each of them."""

import shutil
from dataclasses import replace

import pytest

from tests.extract.extracting import Extract
from tests.peers.writers import SLOW, WRITERS, Writer
from tests.support import canary, random_trees
from tests.support.canary import Snapshot

pytestmark = pytest.mark.needs_root

_QUICK, _QUICK_SLOW = 3, 1
_LONG, _LONG_SLOW = 610, 80
"""Trees: with sixteen quick writers and three slow ones, ten thousand archives."""


def check(extract: Extract, writer: Writer, number: int) -> None:
    base = extract.directory / f"tree-of-{number}"
    tree, work = base / "tree", base / "work"
    tree.mkdir(parents=True)
    work.mkdir()
    random_trees.make(number, tree, rich=writer.rich)
    expected = canary.snapshot(tree)

    made = Extract(extract.pool, work)(archive=writer.write(tree, work), whiteout_devices=False)

    found = canary.snapshot(made.path / writer.below.decode())
    canary.assert_same(comparable(expected, writer), comparable(found, writer), ignore=writer.loses)
    shutil.rmtree(base)


def comparable(tree: Snapshot, writer: Writer) -> Snapshot:
    """Leave out what the format has no room for."""
    unit = writer.unit
    return {path: replace(fact, mtime_ns=fact.mtime_ns // unit * unit) for path, fact in tree.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_what_others_write_comes_out_as_it_was(extract: Extract, name: str) -> None:
    for number in range(_QUICK_SLOW if name in SLOW else _QUICK):
        check(extract, WRITERS[name], number)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WRITERS)
def test_ten_thousand_archives_of_others_come_out_as_they_were(extract: Extract, name: str) -> None:
    for number in range(_LONG_SLOW if name in SLOW else _LONG):
        check(extract, WRITERS[name], number)
