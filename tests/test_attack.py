"""The table of `scripts/attack`: what it names exists, and what it prints is what happened."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.attacks.areas import AREAS, Area, area_of
from tests.attacks.report import TRIED, Attacks, Count
from tests.test_papers import functions_of

_TESTS = Path(__file__).parent


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_an_area_names_tests_that_exist(area: Area) -> None:
    for name in area.tests:
        path, _, test = name.partition("::")
        assert (_TESTS / path).exists(), name
        assert not test or test in functions_of(_TESTS / path), name


def test_each_test_belongs_to_one_area() -> None:
    names = [name for area in AREAS for name in area.tests]

    assert len(names) == len(set(names))
    assert len({area.name for area in AREAS}) == len(AREAS)
    for area in AREAS:
        for name in area.tests:
            assert area_of(name) is area


def test_what_is_written_for_attacks_is_in_an_area() -> None:
    found = [path.relative_to(_TESTS) for path in (_TESTS / "attacks").glob("test_*.py")]

    assert [str(path) for path in found if area_of(str(path)) is None] == []


def test_the_tests_that_show_the_answer_to_a_threat_are_in_an_area() -> None:
    cited = re.findall(r"^\|.*?\|.*?\|(.*)\|$", (_TESTS.parent / "SECURITY.md").read_text(), re.MULTILINE)
    tests = [test for cell in cited for test in re.findall(r"`tests/([\w/.]+::\w+)`", cell)]

    assert len(tests) > 30
    assert [test for test in tests if area_of(test) is None] == []


def test_the_longest_name_decides() -> None:
    areas = (Area("wide", "", ("a/",)), Area("file", "", ("a/b.py",)), Area("test", "", ("a/b.py::test_c",)))

    found = [
        area_of(name, areas)
        for name in ("a/x.py::t", "a/b.py::t", "a/b.py::test_c[1]", "a/b.py::test_cd", "b.py::t")
    ]

    assert [area and area.name for area in found] == ["wide", "file", "test", "file", None]


Outcome = Literal["passed", "failed", "skipped"]
When = Literal["setup", "call", "teardown"]


def _phase(outcome: Outcome, when: When = "call", name: str = "t", tried: tuple[int, ...] = ()) -> Any:
    properties: list[tuple[str, object]] = [(TRIED, number) for number in tried]
    return pytest.TestReport(
        name, ("t", 1, "t"), {}, outcome, None, when, user_properties=properties, duration=1
    )


@pytest.mark.parametrize(
    ("phases", "tried", "held", "holds"),
    [
        pytest.param([_phase("passed")], 1, 1, True, id="a test is a try"),
        pytest.param([_phase("passed", tried=(30, 12))], 42, 42, True, id="a test that counts"),
        pytest.param([_phase("passed", tried=(0,))], 0, 0, False, id="a test that tried nothing"),
        pytest.param([_phase("failed")], 1, 0, False, id="a failure"),
        pytest.param([_phase("failed", tried=(7,))], 8, 7, False, id="a failure after some"),
        pytest.param([_phase("failed", "setup")], 1, 0, False, id="a failure before the test"),
        pytest.param([_phase("passed"), _phase("failed", "teardown")], 2, 1, False, id="one behind it"),
        pytest.param([_phase("skipped", "setup")], 0, 0, False, id="a skip is no try"),
        pytest.param([_phase("passed"), _phase("skipped", name="u")], 1, 1, True, id="a skip beside a test"),
        pytest.param([], 0, 0, False, id="nothing"),
    ],
)
def test_what_is_counted(phases: list[pytest.TestReport], tried: int, held: int, holds: bool) -> None:
    count = Count()
    for phase in phases:
        count.add(phase)

    assert (count.tries + len(count.failed), count.tries, count.holds) == (tried, held, holds)


def test_an_area_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(pytest.UsageError, match=r"--attack nothing \(expected some of: protocol, .*kills"):
        Attacks("kills, nothing")
