"""The tar reader under fire: damaged archives of real tools are read or refused, nothing else."""

import io
import tarfile
import time
from collections.abc import Callable

import pytest

from tests.layer import headers
from tests.layer.damage import Mutator, corpus, judge

_CORPUS = corpus()
_MINUTES = 10
_AT_A_TIME = 500


@pytest.mark.parametrize("name", _CORPUS)
def test_the_corpus_itself_is_read_as_the_standard_library_reads_it(name: str) -> None:
    archive = _CORPUS[name]
    members, _ = headers.read(archive)
    assert len(members) > 2
    if name == "gnu-incremental":
        return  # the standard library takes the other times in GNU's headers for a prefix of the name

    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as expected:
        names = [info.name.encode("utf-8", "surrogateescape") for info in expected]
    assert [member.name.rstrip(b"/") for member in members] == names
    assert judge(archive)


def _fire(seed: int) -> None:
    mutator = Mutator(seed)
    for number in range(_AT_A_TIME):
        archive = mutator.next()
        try:
            judge(archive)
        except Exception as exc:
            exc.add_note(f"archive {number} of Mutator({seed})")
            raise


@pytest.mark.parametrize("seed", range(4))
def test_damaged_archives_are_read_or_refused(seed: int, tried: Callable[[int], None]) -> None:
    _fire(seed)
    tried(_AT_A_TIME)


@pytest.mark.long
@pytest.mark.timeout(_MINUTES * 60 + 120)
def test_ten_minutes_of_damage_show_nothing_but_refusals(tried: Callable[[int], None]) -> None:
    seed, deadline = time.time_ns(), time.monotonic() + _MINUTES * 60
    while time.monotonic() < deadline:
        seed += 1
        _fire(seed)
        tried(_AT_A_TIME)
