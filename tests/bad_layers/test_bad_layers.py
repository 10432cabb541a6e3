"""No layer changes anything outside its directory: the table, as root and as an ordinary user."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_layers import ordinary
from tests.bad_layers.arena import Arena
from tests.bad_layers.attack import Attack
from tests.bad_layers.table import ROWS
from tests.conftest import skip_for_lack_of

_all_rows = pytest.mark.parametrize("attack", [pytest.param(row, id=row.name) for row in ROWS])
_escapes = pytest.mark.parametrize("attack", [pytest.param(row, id=row.name) for row in ROWS if row.escapes])


@pytest.fixture(scope="module")
def grounds() -> Iterator[Path]:
    """A directory that an ordinary user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="layerfs-attacks-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(scope="module", params=["root", "ordinary user"])
def arena(grounds: Path, request: pytest.FixtureRequest) -> Iterator[Arena]:
    is_root, as_root = os.geteuid() == 0, request.param == "root"
    if as_root and not is_root:
        skip_for_lack_of("root")
    if as_root or not is_root:
        made = Arena(grounds / "own", user=os.geteuid())
    else:
        made = Arena(grounds / "other", user=ordinary.USER, worker="tests.bad_layers.ordinary")
    with made:
        yield made


@pytest.fixture(scope="module")
def unguarded(grounds: Path) -> Iterator[Arena]:
    with Arena(grounds / "unguarded", user=os.geteuid(), worker="tests.bad_layers.unguarded") as made:
        yield made


@_all_rows
def test_an_attack_changes_nothing_outside_the_layer(arena: Arena, attack: Attack) -> None:
    outcome = arena.try_(attack)
    assert outcome.damage == [], "this is an escape"
    if attack.refused is None:
        assert (outcome.error, outcome.message) == ("", "")
        if attack.leaves is not None:
            assert outcome.leaves == attack.leaves
    else:
        assert outcome.error in {kind.__name__ for kind in (attack.refused, *attack.refused.__subclasses__())}
        for part in attack.says:
            assert part in outcome.message


@_escapes
def test_without_guards_the_attack_succeeds(unguarded: Arena, attack: Attack) -> None:
    assert unguarded.try_(attack).damage, "this row proves nothing"


def test_most_of_the_table_is_about_escapes_and_refusals() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert sum(row.escapes for row in ROWS) > 30
    assert sum(row.refused is not None for row in ROWS) > 100
