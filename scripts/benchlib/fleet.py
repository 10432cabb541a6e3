"""`scripts/bench fleet`: an image on many nodes at once, from one registry behind a line that all share.

Each node is a network namespace with a layerfs and a store of its own. The seconds are those until the last
one has the image, extracted; beside them stands what came over the line of the registry. All nodes share the
cores of this machine: what is compared is who sends how much, and not how quick nodes of a real fleet are.
"""

import contextlib
import os
import queue
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib import machine
from benchlib.fetched import Throttle
from benchlib.results import Measurement, NotAble, Sample, Target, measure_many
from tests.support import daemon, images
from tests.support.nodes import Fleet, Node, fleet
from tests.support.registry import Registry
from tests.support.serving import serving

_LAYERS: Final = 5
_FILE: Final = 1 << 20
_NAME: Final = "bench/fleet"
_MB: Final = 1e6
_READERS: Final = 4
"""Nodes that a peer serves at the same time."""
_SECONDS: Final = 1200
_FROM: Final = "images from upstream"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a fleet is, and what it gets."""

    nodes: int
    megabytes: int
    rate: float
    """MB/s of the line."""


def measurements(size: Size, rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield one table."""
    with (
        tempfile.TemporaryDirectory(prefix="layerfs-bench.", dir=machine.cache_directory()) as name,
        Registry(Path(name, "registry")) as registry,
        fleet(size.nodes, "lfsb") as machines,
    ):
        progress("making the image")
        registry.push(_NAME, "latest", _image(size.megabytes))
        scene = _Scene(Path(name), registry, machines, size)
        title = f"an image of {size.megabytes} MB on {size.nodes} nodes, one registry at {size.rate:g} MB/s"
        contenders = [
            ("one node", "", scene.one),
            ("no mirror", "", scene.without_mirror),
            ("docker-registry as proxy", "", scene.with_proxy),
            ("peers that serve", "", scene.with_peers),
        ]
        several = [(name, note, _named(title, run)) for name, note, run in contenders]
        [found] = measure_many({title: ("s", "less")}, several, rounds, progress)
        found.rows[-1].targets = [Target(1.3, figure=_FROM), _at_most(found, 2.5)]
        yield found


def _at_most(found: Measurement, times: float) -> Target:
    """Return the target that is so many times the first row."""
    alone = found.rows[0]
    return Target(round(times * alone.median, 1) if alone.samples else 0)


def _named(title: str, run: Callable[[], Sample]) -> Callable[[], dict[str, Sample]]:
    return lambda: {title: run()}


def _image(megabytes: int) -> images.BuiltImage:
    noise = random.Random(24)
    layers = [
        images.layer(
            *(
                images.file(f"l{number}/f{index}", noise.randbytes(_FILE))
                for index in range(max(1, megabytes * 1_000_000 // _LAYERS // _FILE))
            ),
            compression="zstd",
        )
        for number in range(_LAYERS)
    ]
    return images.image(*layers)


class _Scene:
    """A fleet and its registry; each run begins with empty stores."""

    def __init__(self, base: Path, registry: Registry, machines: Fleet, size: Size) -> None:
        self._base = base
        self._registry = registry
        self._machines = machines
        self._size = size

    def one(self) -> Sample:
        """One node, with the line to itself."""
        return self._sample(lambda line: self._pull(self._machines.nodes[0], line.host))

    def without_mirror(self) -> Sample:
        """All nodes ask the registry."""
        return self._sample(lambda line: self._all(lambda node: self._pull(node, line.host)))

    def with_proxy(self) -> Sample:
        """All nodes ask one proxy with a cache."""

        def run(line: Throttle) -> None:
            with self._proxy(line) as proxy:
                host = f"{self._machines.host}:{proxy.port}"
                self._all(lambda node: self._pull(node, host))

        return self._sample(run)

    def with_peers(self) -> Sample:
        """One node asks the registry; whoever has the image serves it to some others at a time.

        Who asks whom is decided here, as well as it can be: each node waits for a place at one that has it.
        """
        places: queue.Queue[tuple[str, bool]] = queue.Queue()

        def run(line: Throttle) -> None:
            with contextlib.ExitStack() as servers:
                places.put((line.host, False))

                def have(node: Node) -> None:
                    host, stays = places.get(timeout=_SECONDS)
                    self._pull(node, host)
                    if stays:
                        places.put((host, True))
                    listen = f"{node.address}:5000"
                    server = serving(self._store(node), listen=listen, before=node.inside)
                    address = servers.enter_context(server).address
                    for _ in range(_READERS):
                        places.put((address, True))

                self._all(have)

        return self._sample(run)

    def _sample(self, run: Callable[[Throttle], None]) -> Sample:
        size = self._size
        image = sum(
            path.stat().st_size
            for path in (self._registry.storage / "docker/registry/v2/blobs").rglob("data")
        )
        try:
            with Throttle(self._registry.port, size.rate * _MB, address=self._machines.host) as line:
                started = time.perf_counter()
                run(line)
                seconds = time.perf_counter() - started
                return Sample(seconds, {"MB from upstream": line.passed / _MB, _FROM: line.passed / image})
        finally:
            machine.run(["rm", "-rf", self._base / "stores", self._base / "proxy"])

    def _all(self, act: Callable[[Node], None]) -> None:
        with ThreadPoolExecutor(self._size.nodes) as threads:
            list(threads.map(act, self._machines.nodes))

    def _store(self, node: Node) -> Path:
        return self._base / "stores" / node.namespace / "store"

    def _pull(self, node: Node, host: str) -> None:
        store = self._store(node)
        store.parent.mkdir(parents=True, exist_ok=True)
        command = [*node.inside, *daemon.LAYERFS, "pull", "-q", "--store", str(store)]
        done = subprocess.run(
            [*command, "--insecure-registry", host, f"{host}/{_NAME}:latest"],
            env=daemon.clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise NotAble(done.stderr.strip()[-160:])

    @contextlib.contextmanager
    def _proxy(self, line: Throttle) -> Iterator[Registry]:
        """Run docker-registry as a cache before the line, for all nodes."""
        proxy = Registry(self._base / "proxy")
        said = {
            "REGISTRY_PROXY_REMOTEURL": f"http://{line.host}",
            "REGISTRY_HTTP_ADDR": f"0.0.0.0:{proxy.port}",
        }
        os.environ.update(said)
        try:
            proxy.start()
        finally:
            for name in said:
                del os.environ[name]
        try:
            yield proxy
        finally:
            proxy.stop()
