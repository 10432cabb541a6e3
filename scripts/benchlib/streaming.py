"""`scripts/bench overlap`, one large blob: by one request at a time, and by several.

By the downloader in this process, from docker-registry on loopback: at full speed, and where each connection
has a limit of its own, as a server far away has.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import trio

from benchlib import machine
from benchlib.fetched import Throttle
from benchlib.results import Measurement, Sample, Target, measure_rows
from layerfs.fetch.download import download
from layerfs.fetch.origin import InProcess
from layerfs.fetch.progress import Progress
from layerfs.fetch.streams import Streams
from layerfs.oci import Descriptor, Repository
from layerfs.registry.client import RegistryClient
from layerfs.store import ImageStorage
from tests.support import images
from tests.support.registry import Registry

_SIZE: Final = 512 << 20
_RATIO: Final = "x one"
_SPEEDS: Final = {"20 MB/s a connection": (20e6, 1 / 3.5), "full speed": (None, 1.03)}
"""The limit of a connection, and which share of the time of one request four may take."""


def measurements(rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield a table for each speed."""
    with machine.fresh("tmpfs") as base, Registry(base / "registry") as registry:
        layer = images.layer(images.file("a", os.urandom(_SIZE)), compression="none")
        registry.push("bench/streams", "latest", images.image(layer))
        for speed, (rate, target) in _SPEEDS.items():
            yield measure_rows(
                f"download {_SIZE >> 20} MiB, tmpfs, {speed}",
                "s",
                "less",
                _Round(base, registry, layer.descriptor(), rate),
                rounds,
                progress,
                targets={"4 requests": [Target(target, figure=_RATIO)]},
            )


class _Round:
    """Downloads one blob both ways."""

    def __init__(self, base: Path, registry: Registry, blob: Descriptor, rate: float | None) -> None:
        self._base = base
        self._registry = registry
        self._blob = blob
        self._rate = rate

    def __call__(self) -> dict[str, Sample]:
        one, four = (self._seconds(most) for most in (1, 4))
        return {"1 request": Sample(one), "4 requests": Sample(four, {_RATIO: four / one})}

    def _seconds(self, most: int) -> float:
        store = self._base / str(time.monotonic_ns())
        with self._host() as host, ImageStorage(store) as storage:
            began = time.perf_counter()
            trio.run(_downloaded, storage, Repository.of(host, "bench/streams"), self._blob, Streams(most))
            seconds = time.perf_counter() - began
        machine.run(["rm", "-rf", store])
        return seconds

    @contextlib.contextmanager
    def _host(self) -> Iterator[str]:
        if self._rate is None:
            yield self._registry.host
        else:
            with Throttle(self._registry.port, self._rate, each=True) as throttle:
                yield throttle.host


async def _downloaded(
    storage: ImageStorage, repository: Repository, blob: Descriptor, streams: Streams
) -> None:
    progress = Progress(repository, blob.digest, blob.size)
    async with RegistryClient() as client:
        with storage.stage_layer_download(blob.digest, blob.size) as staged:
            origin = InProcess(client, inline=True)
            await download(origin, staged, repository, blob, progress, streams=streams)
