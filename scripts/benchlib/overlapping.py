"""`scripts/bench overlap`: a layer fetched and extracted at once, against its two halves alone.

Through a mount, from docker-registry on loopback: at full speed, where all of them share the cores, and at
the speed of a good line, where the download leaves them idle.
"""

import contextlib
from collections.abc import Callable, Iterator

from benchlib import inputs, machine, streaming
from benchlib.fetched import Source, Throttle
from benchlib.inputs import Input
from benchlib.results import Measurement, Sample, Target, measure_rows

_RATES = {"full speed": None, "50 MB/s": 50e6}
_BOTH = "fetch and extract"
_RATIO = "x the longer alone"
_TARGETS = {_BOTH: [Target(1.15, figure=_RATIO)]}


def measurements(rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield a table for each layer and speed."""
    yield from streaming.measurements(rounds, progress)
    layers = [inputs.get(name, "gzip", progress) for name in ("a", "b")]
    tiny = inputs.get("tiny", "gzip", progress)
    with machine.fresh("tmpfs") as base, Source(base, [tiny, *layers]) as source:
        for given in layers:
            for speed, rate in _RATES.items():
                yield measure_rows(
                    f"fetch and extract {given.describe()}, tmpfs, {speed}",
                    "s",
                    "less",
                    _Round(source, given, rate),
                    rounds,
                    progress,
                    targets=_TARGETS,
                )


class _Round:
    """Fetches one layer both ways."""

    def __init__(self, source: Source, given: Input, rate: float | None) -> None:
        self._source = source
        self._given = given
        self._rate = rate

    def __call__(self) -> dict[str, Sample]:
        with self._host() as host:
            with self._source.mounted(host) as mount:
                layer = mount.layer(self._given)
                download, extraction = layer.download(), layer.extract()
            with self._source.mounted(host) as mount:
                both = mount.layer(self._given).extract()
        return {
            _BOTH: Sample(both, {_RATIO: both / max(download, extraction)}),
            "download alone": Sample(download),
            "extraction alone": Sample(extraction),
        }

    @contextlib.contextmanager
    def _host(self) -> Iterator[str]:
        if self._rate is None:
            yield self._source.registry.host
        else:
            with Throttle(self._source.registry.port, self._rate) as throttle:
                yield throttle.host
