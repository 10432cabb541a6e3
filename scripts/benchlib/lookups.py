"""A client that looks up entries of one layer while the daemon has something else to do.

For `scripts/bench beside`. Every lookup is a request that the daemon answers: between two passes over the
layer the kernel forgets what it knows.
"""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib import inside
from benchlib.fetched import Mount, Source
from benchlib.inputs import Input
from benchlib.mounting import Client
from benchlib.results import NotAble, Sample

WAITERS: Final = 10_000
RATIO: Final = "x idle"
"""The name of the figure that compares a row with an idle daemon."""

_LONGEST_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Lookups:
    """What a client saw; times in microseconds."""

    count: int
    median: float
    p99: float
    longest: float
    seconds: float
    """In lookups, without the pauses."""

    @property
    def rate(self) -> float:
        """Lookups a second."""
        return self.count / self.seconds

    def sample(self, idle: "Lookups | None" = None) -> Sample:
        """Return it as a row, beside an *idle* daemon's."""
        ratio = {RATIO: self.p99 / idle.p99} if idle else {}
        return Sample(self.p99, {"p50": self.median, "max": self.longest, "lookups": self.count, **ratio})


class Scene:
    """Layers in a registry, and the client that looks things up in (a) for *seconds* at a time."""

    def __init__(
        self, directory: Path, source: Source, client: Client, layers: Mapping[str, Input], seconds: int
    ) -> None:
        self.directory = directory
        self.source = source
        self.layers = layers
        self._client = client
        self._seconds = seconds

    @contextlib.contextmanager
    def mounted(self, *inside_it: str) -> Iterator[Mount]:
        """Mount a new store that has (a); *inside_it* says what is added to the daemon's process."""
        with self.source.mounted(command=inside.command(*inside_it) if inside_it else None) as mount:
            mount.layer(self.layers["a"]).extract()
            yield mount

    def look_up(self, mount: Mount) -> Lookups:
        """Look things up in (a) for as long as a round takes."""
        with self.looking_up(mount, self._seconds) as client:
            return _lookups(client)

    def look_up_beside(self, mount: Mount, work: Callable[[], object]) -> Lookups:
        """Look things up in (a) from before *work* begins until it ends."""
        with self.looking_up(mount) as client:
            work()
            client.terminate()
            return _lookups(client)

    def sleep(self) -> None:
        """Do nothing for as long as a round takes."""
        time.sleep(self._seconds)

    @contextlib.contextmanager
    def looking_up(self, mount: Mount, seconds: int = _LONGEST_SECONDS) -> Iterator["subprocess.Popen[str]"]:
        """Run the client for a block, or for *seconds* of it."""
        tree = mount.layer(self.layers["a"]).tree
        with self._started("latency", tree, seconds, self._client.names) as client:
            yield client

    @contextlib.contextmanager
    def waiting(self, mount: Mount) -> Iterator[None]:
        """Let thousands of callers wait for (b), which the registry does not send, for a block.

        They open its root: of those who look up names in one directory, the kernel lets one ask at a time.
        """
        cold = mount.layer(self.layers["b"]).path
        registry = self.source.registry
        with registry.paused(), self._started("wait", cold, WAITERS, "diff\n"):
            mount.daemon.wait_for_callers(WAITERS)
            yield
            registry.resume()  # a caller that gets its answer is quicker to end than one that is killed

    @contextlib.contextmanager
    def _started(
        self, what: str, directory: Path, number: int, paths: str
    ) -> Iterator["subprocess.Popen[str]"]:
        argv: list[str | Path] = [self._client.program, what, directory, str(number)]
        with tempfile.TemporaryFile("w+") as given:
            given.write(paths)
            given.seek(0)
            client = subprocess.Popen(
                argv, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        try:
            yield client
        finally:
            client.kill()
            client.communicate()


def _lookups(client: "subprocess.Popen[str]") -> Lookups:
    """Wait for the client's end. Raises NotAble."""
    found, problem = client.communicate()
    if client.returncode:
        raise NotAble(problem.strip()[-160:])
    count, *figures = found.split()
    return Lookups(int(count), *map(float, figures))
