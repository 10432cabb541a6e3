"""Counts what was tried on layerfs and what held, for `scripts/attack`: a plugin of pytest.

A test is one try. One that tries many things counts them by the fixture ``tried``, one that Hypothesis runs
by its examples. What was skipped was not tried.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.attacks.areas import AREAS, Area, area_of

TRIED: Final = "tried"
"""Name of the property of a test that counts tries which held."""


@dataclass(slots=True)
class Count:
    """What became of the tries of an area."""

    tests: set[str] = field(default_factory=set)
    tries: int = 0
    """That held."""
    failed: set[str] = field(default_factory=set)
    """Tests in which one did not; the others in them count as tries that held."""
    skipped: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def add(self, report: pytest.TestReport) -> None:
        """Count one phase of a test."""
        self.seconds += report.duration
        if report.skipped:
            self.skipped.add(report.nodeid)
            return
        if report.failed:
            self.tests.add(report.nodeid)
            self.failed.add(report.nodeid)
        if report.when == "call":
            self.tests.add(report.nodeid)
            counts = [int(str(number)) for name, number in report.user_properties if name == TRIED]
            self.tries += sum(counts) if counts or report.failed else 1

    @property
    def holds(self) -> bool:
        """Whether something was tried, and all of it held."""
        return self.tries > 0 and not self.failed

    def row(self, name: str) -> str:
        """Return a line of the table."""
        tried = self.tries + len(self.failed)
        numbers = (
            len(self.tests),
            tried,
            self.tries,
            len(self.failed),
            len(self.skipped),
            round(self.seconds),
        )
        return f"{name:<18}" + "".join(f"{number:>9,}" for number in numbers)


HEAD: Final = f"{'area':<18}" + "".join(
    f"{word:>9}" for word in ("tests", "tried", "held", "not held", "skipped", "seconds")
)


class Attacks:
    """The plugin: chooses the tests of areas, if some are asked for, and prints the table at the end."""

    def __init__(self, asked: str) -> None:
        """Take a comma-separated list of areas or ``all``; with nothing the tests run that come anyway."""
        names = [area.name for area in AREAS]
        self._chosen = (
            names if asked == "all" else [name.strip() for name in asked.split(",") if name.strip()]
        )
        if unknown := [name for name in self._chosen if name not in names]:
            raise pytest.UsageError(f"--attack {', '.join(unknown)} (expected some of: {', '.join(names)})")
        self._counts = {name: Count() for name in self._chosen}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out the tests of other areas."""
        if self._chosen:
            areas = {item: _area(item.nodeid) for item in items}
            chosen = [item for item in items if (area := areas[item]) and area.name in self._chosen]
            config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
            items[:] = chosen

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Count the examples of Hypothesis."""
        with _examples_counted(item):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a phase of a test."""
        area = _area(report.nodeid)
        if area is not None:
            self._counts.setdefault(area.name, Count()).add(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail if an area that was asked for does not hold, or has nothing that ran."""
        if hasattr(session.config, "workerinput"):
            return  # of pytest-xdist: who started it has the reports of all
        if self._chosen and not all(count.holds for count in self._counts.values()):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table."""
        if not self._counts:
            return
        terminalreporter.section("attacks")
        terminalreporter.write_line(HEAD)
        total = Count()
        for area in AREAS:
            count = self._counts.get(area.name)
            if count is not None:
                remark = "" if count.holds or count.failed else ": nothing ran"
                terminalreporter.write_line(f"{count.row(area.name)}   {area.tries}{remark}")
                total = _sum(total, count)
        terminalreporter.write_line(total.row("sum"))


def _sum(one: Count, other: Count) -> Count:
    return Count(
        one.tests | other.tests,
        one.tries + other.tries,
        one.failed | other.failed,
        one.skipped | other.skipped,
        one.seconds + other.seconds,
    )


def _area(nodeid: str) -> Area | None:
    return area_of(nodeid.removeprefix("tests/"))


@contextlib.contextmanager
def _examples_counted(item: pytest.Item) -> Iterator[None]:
    """Count how often Hypothesis calls the test and has an answer, if it does at all."""
    hypothesis = getattr(getattr(item, "obj", None), "hypothesis", None)
    if hypothesis is None or inspect.iscoroutinefunction(hypothesis.inner_test):
        yield
        return
    inner, examples = hypothesis.inner_test, 0

    @functools.wraps(inner)
    def counting(*arguments: Any, **named: Any) -> None:
        nonlocal examples
        inner(*arguments, **named)
        examples += 1

    hypothesis.inner_test = counting
    try:
        yield
    finally:
        hypothesis.inner_test = inner
        item.user_properties.append((TRIED, examples))
