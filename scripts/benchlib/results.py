"""Samples of several contenders, collected in turn, and the table and JSON that are made of them.

The ratio of a row is always layerfs over the contender; where that is the wrong side of 1, the row says so.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SUBJECT = "layerfs"


class NotAble(Exception):
    """A contender cannot do this here; the text says why. Its row says so instead of a number."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: the measured value, and further figures that are shown beside it."""

    value: float
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Row:
    """All samples of one contender for one measurement."""

    contender: str
    note: str = ""
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(sample.value for sample in self.samples)

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


Run = Callable[[], Sample]
RunMany = Callable[[], dict[str, Sample]]


def measure(
    title: str,
    unit: str,
    better: Literal["less", "more"],
    contenders: Sequence[tuple[str, str, Run]],
    rounds: int,
    progress: Callable[[str], None],
) -> Measurement:
    """Run the contenders (name, note, run) in turn, A B C A B C, *rounds* times."""
    several = [(name, note, _named(title, run)) for name, note, run in contenders]
    return measure_many({title: (unit, better)}, several, rounds, progress)[0]


def measure_many(
    titles: Mapping[str, tuple[str, Literal["less", "more"]]],
    contenders: Sequence[tuple[str, str, RunMany]],
    rounds: int,
    progress: Callable[[str], None],
) -> list[Measurement]:
    """Do the same for runs that give a sample for each of *titles* (title: unit, better)."""
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
    notes = any(row.note for row in measurement.rows)
    head = ["", "median", "min .. max", "layerfs/it", *extras, *(["verifies"] if notes else []), ""]
    lines = [head, *(_cells(measurement, row, extras, notes) for row in measurement.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    body = (
        "  ".join(_align(*cell) for cell in zip(line, widths, range(len(head)), strict=True))
        for line in lines
    )
    return f"\n{measurement.title} [{measurement.unit}]\n" + "\n".join(line.rstrip() for line in body)


def as_json(measurements: Iterable[Measurement], about: dict[str, Any]) -> dict[str, Any]:
    """Return everything, every sample included, as a document."""
    return about | {"measurements": [_measurement_json(measurement) for measurement in measurements]}


def _cells(measurement: Measurement, row: Row, extras: list[str], notes: bool) -> list[str]:
    verifies = [row.note] if notes else []
    if not row.samples:
        return [row.contender, "-", "", "", *("" for _ in extras), *verifies, f"not measured: {row.failure}"]
    values = [sample.value for sample in row.samples]
    ratio = measurement.ratio(row)
    remark = "layerfs is worse" if ratio is not None and measurement.is_worse(ratio) else ""
    more = row.more()
    return [
        row.contender,
        number(row.median),
        f"{number(min(values))} .. {number(max(values))}",
        "" if ratio is None else f"{ratio:.2f}",
        *(number(more[name]) if name in more else "" for name in extras),
        *verifies,
        remark,
    ]


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
                "failure": row.failure or None,
                "median": row.median if row.samples else None,
                "layerfs_ratio": measurement.ratio(row),
                "samples": [{"value": sample.value, **sample.more} for sample in row.samples],
            }
            for row in measurement.rows
        ],
    }
