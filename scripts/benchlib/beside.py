"""`scripts/bench beside`: what one client feels of the other things that a daemon does.

Lookups in one layer, while the daemon does nothing else, extracts another layer, downloads one at full speed,
has ten thousand waiting callers, or a busy thread in its own process; and a timer in that process.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal

from benchlib import inputs, inside, machine
from benchlib.fetched import Source
from benchlib.lookups import RATIO, WAITERS, Scene
from benchlib.mounting import Client
from benchlib.results import Measurement, Sample, Target, measure_rows

_SECONDS: Final = 20
"""How long each state lasts, all rounds together."""
_IDLE: Final = "an idle daemon"
_THREE_TIMES: Final = Target(3, figure=RATIO)


@dataclass(frozen=True, slots=True)
class _Table:
    """What is measured in one round, and what it should come to."""

    title: str
    unit: str
    better: Literal["less", "more"]
    run: Callable[[Scene], dict[str, Sample]]
    targets: dict[str, Target]


def measurements(parts: Sequence[str], rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield the tables named by *parts*."""
    layers = {name: inputs.get(name, "gzip", progress) for name in ("tiny", "a", "b", "d")}
    with machine.fresh("tmpfs") as base, Source(base, list(layers.values())) as source:
        names = base / "names"
        names.mkdir()
        machine.run(["tar", "-xpf", layers["a"].blob, "-C", names])
        client = Client.compile(base, names)
        scene = Scene(base, source, client, layers, max(1, round(_SECONDS / rounds)))
        for table in (_TABLES[part] for part in parts):
            yield measure_rows(
                table.title,
                table.unit,
                table.better,
                lambda run=table.run: run(scene),  # type: ignore[misc]  # bound now, not when the next runs
                rounds,
                progress,
                targets={row: [target] for row, target in table.targets.items()},
            )


def _beside_work(scene: Scene) -> dict[str, Sample]:
    with scene.mounted() as mount:
        extracted, downloaded = (mount.layer(scene.layers[name]) for name in ("b", "d"))
        idle = scene.look_up(mount)
        extracted.download()
        extraction = scene.look_up_beside(mount, extracted.extract)
        download = scene.look_up_beside(mount, downloaded.download)
    return {
        _IDLE: idle.sample(),
        "extraction of (b)": extraction.sample(idle),
        "download of (d)": download.sample(idle),
    }


def _beside_waiters(scene: Scene) -> dict[str, Sample]:
    with scene.mounted() as mount:
        idle = scene.look_up(mount)
        with scene.waiting(mount):
            beside = scene.look_up(mount)
    return {_IDLE: idle.sample(), f"{WAITERS:,} callers": beside.sample(idle)}


def _beside_thread(scene: Scene) -> dict[str, Sample]:
    found = {}
    for row, added in ((_IDLE, ()), ("a busy thread", ("busy",))):
        with scene.mounted(*added) as mount:
            seen = scene.look_up(mount)
        found[row] = Sample(seen.rate, {"p99 us": seen.p99})
    return found


def _timer(scene: Scene) -> dict[str, Sample]:
    """Measure the timer beside clients, an extraction and a download."""
    file = scene.directory / f"timer{time.monotonic_ns()}"
    with scene.mounted("timer", str(file)) as mount:
        other = mount.layer(scene.layers["b"])
        states: dict[str, tuple[int, Callable[[], object]]] = {
            _IDLE: (0, scene.sleep),
            "one client": (1, scene.sleep),
            "two clients": (2, scene.sleep),
            "a client, download of (b)": (1, other.download),
            "a client, extraction of (b)": (1, other.extract),
        }
        times = {}
        for row, (clients, work) in states.items():
            with ExitStack() as stack:
                for _ in range(clients):
                    stack.enter_context(scene.looking_up(mount))
                since = time.monotonic()
                work()
                times[row] = since, time.monotonic()
    return {row: _lateness(inside.lateness(file, *span)) for row, span in times.items()}


def _lateness(seconds: list[float]) -> Sample:
    found = sorted(1000 * late for late in seconds)
    return Sample(found[-1], {"p50": found[len(found) // 2], "p99": found[len(found) * 99 // 100]})


_TABLES: Final = {
    "work": _Table(
        "p99 of a lookup beside an extraction and a download",
        "us",
        "less",
        _beside_work,
        {"extraction of (b)": _THREE_TIMES, "download of (d)": _THREE_TIMES},
    ),
    "waiters": _Table(
        "p99 of a lookup beside callers that wait",
        "us",
        "less",
        _beside_waiters,
        {f"{WAITERS:,} callers": _THREE_TIMES},
    ),
    "thread": _Table(
        "lookups beside a busy thread of Python in the daemon",
        "1/s",
        "more",
        _beside_thread,
        {"a busy thread": Target(10_000, "more")},
    ),
    "timer": _Table(
        "lateness of a 5 ms timer in the daemon, the worst of each round",
        "ms",
        "less",
        _timer,
        {row: Target(5) for row in ("one client", "two clients", "a client, download of (b)")},
    ),
}
PARTS: Final = tuple(_TABLES)
