"""Samples of several contenders, collected in turn, and the table and JSON that are made of them.

The ratio of a row is layerfs over the contender; where that is the wrong side of 1, the row says so. Where
layerfs is measured against itself there is no ratio, but a target beside what it is a target for.
"""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SUBJECT = "layerfs"
ALONE = "LAYERFS_BENCH_ALONE"
"""Environment variable: with ``1`` no other tool is measured in a table that has a row of layerfs."""


class NotAble(Exception):
    """A contender cannot do this here; the text says why. Its row says so instead of a number."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: the measured value, and further figures that are shown beside it."""

    value: float
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What the median of a row must reach."""

    limit: float
    better: Literal["less", "more"] = "less"
    figure: str = ""
    """Which of the further figures it is about; empty for the value itself."""

    def is_missed(self, row: "Row") -> bool:
        """Say whether *row*, which has samples, is on the wrong side of the limit."""
        found = row.more()[self.figure] if self.figure else row.median
        return found > self.limit if self.better == "less" else found < self.limit

    def __str__(self) -> str:
        bound = f"{'at most' if self.better == 'less' else 'at least'} {self.limit:,g}"
        return f"{self.figure} {bound}".lstrip()


@dataclass
class Row:
    """All samples of one contender for one measurement."""

    contender: str
    note: str = ""
    targets: Sequence[Target] = ()
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(sample.value for sample in self.samples)

    @property
    def misses(self) -> bool:
        """Whether it has a target that it does not reach."""
        return any(target.is_missed(self) for target in self.targets)

    def wanted(self) -> str:
        """Return its targets as text."""
        return ", ".join(map(str, self.targets))

    def more(self) -> dict[str, float]:
        """Return the median of each further figure."""
        names = dict.fromkeys(name for sample in self.samples for name in sample.more)
        return {
            name: statistics.median(s.more[name] for s in self.samples if name in s.more) for name in names
        }


@dataclass
class Measurement:
    """One table: contenders, in the order in which they run."""

    title: str
    unit: str
    better: Literal["less", "more"]
    rows: list[Row]

    def ratio(self, row: Row) -> float | None:
        """Return layerfs over *row*, None where one of the two has no number."""
        subject = next((r for r in self.rows if r.contender == SUBJECT), None)
        if subject is None or row is subject or not subject.samples or not row.samples or not row.median:
            return None
        return subject.median / row.median

    def is_worse(self, ratio: float) -> bool:
        """Say whether *ratio* means that layerfs loses."""
        return ratio > 1 if self.better == "less" else ratio < 1


Targets = Mapping[str, Sequence[Target]]
"""By row."""
NO_TARGETS: Targets = {}
Run = Callable[[], Sample]
RunMany = Callable[[], dict[str, Sample]]


def measure(
    title: str,
    unit: str,
    better: Literal["less", "more"],
    contenders: Sequence[tuple[str, str, Run]],
    rounds: int,
    progress: Callable[[str], None],
    targets: Targets = NO_TARGETS,
) -> Measurement:
    """Run the contenders (name, note, run) in turn, A B C A B C, *rounds* times.

    *targets* are by contender.
    """
    several = [(name, note, _named(title, run)) for name, note, run in contenders]
    found = measure_many({title: (unit, better)}, several, rounds, progress)[0]
    for row in found.rows:
        row.targets = targets.get(row.contender, ())
    return found


def measure_rows(
    title: str,
    unit: str,
    better: Literal["less", "more"],
    run: Callable[[], Mapping[str, Sample]],
    rounds: int,
    progress: Callable[[str], None],
    targets: Targets = NO_TARGETS,
) -> Measurement:
    """Call *run*, which measures all rows of a table in one go, *rounds* times."""
    found = Measurement(title, unit, better, [])
    rows: dict[str, Row] = {}
    for number in range(rounds):
        progress(f"{title}: round {number + 1} of {rounds}")
        for name, sample in run().items():
            rows.setdefault(name, Row(name, targets=targets.get(name, ()))).samples.append(sample)
    found.rows = list(rows.values())
    return found


def measure_many(
    titles: Mapping[str, tuple[str, Literal["less", "more"]]],
    contenders: Sequence[tuple[str, str, RunMany]],
    rounds: int,
    progress: Callable[[str], None],
) -> list[Measurement]:
    """Do the same for runs that give a sample for each of *titles* (title: unit, better)."""
    if os.environ.get(ALONE) == "1":
        contenders = [each for each in contenders if each[0] == SUBJECT] or contenders
    found = [
        Measurement(title, unit, better, [Row(name, note) for name, note, _ in contenders])
        for title, (unit, better) in titles.items()
    ]
    failures: dict[str, str] = {}
    for number in range(rounds):
        for column, (name, _, run) in enumerate(contenders):
            if name in failures:
                continue
            progress(f"{' / '.join(titles)}: round {number + 1} of {rounds}, {name}")
            try:
                samples = run()
            except NotAble as reason:
                failures[name] = str(reason)
                continue
            for measurement in found:
                measurement.rows[column].samples.append(samples[measurement.title])
    for measurement in found:
        for row in measurement.rows:
            if row.contender in failures:  # a contender that fails now and then has no number
                row.failure = failures[row.contender]
                row.samples.clear()
    return found


def _named(title: str, run: Run) -> RunMany:
    return lambda: {title: run()}


def table(measurement: Measurement) -> str:
    """Return the measurement as aligned text."""
    extras = list(dict.fromkeys(name for row in measurement.rows for name in row.more()))
    shown = _Columns(
        extras=extras,
        ratios=any(measurement.ratio(row) is not None for row in measurement.rows),
        notes=any(row.note for row in measurement.rows),
        targets=any(row.targets for row in measurement.rows),
    )
    lines = [shown.head(), *(shown.cells(measurement, row) for row in measurement.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    body = (
        "  ".join(_align(*cell) for cell in zip(line, widths, range(len(widths)), strict=True))
        for line in lines
    )
    return f"\n{measurement.title} [{measurement.unit}]\n" + "\n".join(line.rstrip() for line in body)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns a table has besides name, median, range and remark."""

    extras: list[str]
    ratios: bool
    notes: bool
    targets: bool

    def head(self) -> list[str]:
        ratio = ["layerfs/it"] if self.ratios else []
        notes = ["verifies"] if self.notes else []
        return ["", "median", "min .. max", *ratio, *self.extras, *notes, *(["target"] * self.targets), ""]

    def cells(self, measurement: Measurement, row: Row) -> list[str]:
        notes = [row.note] if self.notes else []
        target = [row.wanted()] if self.targets else []
        if not row.samples:
            blanks = [""] * (len(self.extras) + self.ratios)
            return [row.contender, "-", "", *blanks, *notes, *target, f"not measured: {row.failure}"]
        values = [sample.value for sample in row.samples]
        ratio = measurement.ratio(row)
        worse = ratio is not None and measurement.is_worse(ratio)
        more = row.more()
        return [
            row.contender,
            number(row.median),
            f"{number(min(values))} .. {number(max(values))}",
            *(["" if ratio is None else f"{ratio:.2f}"] if self.ratios else []),
            *(number(more[name]) if name in more else "" for name in self.extras),
            *notes,
            *target,
            "missed" if row.misses else "layerfs is worse" if worse else "",
        ]


def as_json(measurements: Iterable[Measurement], about: dict[str, Any]) -> dict[str, Any]:
    """Return everything, every sample included, as a document."""
    return about | {"measurements": [_measurement_json(measurement) for measurement in measurements]}


def number(value: float) -> str:
    """Write *value* with three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 or not value else f"{value:.4f}"


def _align(text: str, width: int, column: int) -> str:
    return text.rjust(width) if 1 <= column <= 3 or (text and text[0].isdecimal()) else text.ljust(width)


def _measurement_json(measurement: Measurement) -> dict[str, Any]:
    return {
        "title": measurement.title,
        "unit": measurement.unit,
        "better": measurement.better,
        "rows": [
            {
                "contender": row.contender,
                "verifies": row.note,
                "target": row.wanted() or None,
                "failure": row.failure or None,
                "median": row.median if row.samples else None,
                "layerfs_ratio": measurement.ratio(row),
                "samples": [{"value": sample.value, **sample.more} for sample in row.samples],
            }
            for row in measurement.rows
        ],
    }
