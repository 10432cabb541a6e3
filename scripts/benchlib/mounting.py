"""`scripts/bench mount`: the same layer through layerfs, fuse-overlayfs and ratarmount.

Cold means a fresh mount whose backing pages are in memory; warm is the same once more on that mount.
"""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchlib import inputs, machine
from benchlib.results import Measurement, NotAble, RunMany, Sample, measure_many
from benchlib.served import Backing, Contender, Layer, Served

_CLIENT_SOURCE = Path(__file__).parents[1] / "bench_client.c"
_IDLE_SECONDS = 1.0


@dataclass(frozen=True)
class Client:
    """The compiled client, and the names it is given."""

    program: Path
    names: str
    files: str

    @classmethod
    def compile(cls, base: Path, tree: Path) -> "Client":
        """Compile the client, and list *tree* for it."""
        program = base / "bench_client"
        subprocess.run(["gcc", "-O2", "-o", str(program), str(_CLIENT_SOURCE)], check=True)
        return cls(program, _listing(tree), _listing(tree, "-type", "f"))

    def run(self, operation: str, directory: Path, clients: int = 1) -> float:
        """Return operations a second (for cat: bytes)."""
        paths = {"stat": self.names, "read": self.files, "find": ".\n", "cat": "file\n"}[operation]
        command = [str(self.program), operation, str(directory), str(clients)]
        done = subprocess.run(command, input=paths, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotAble(done.stderr.strip()[-160:])
        count, seconds = done.stdout.split()
        return int(count) / float(seconds)


# One session is one fresh mount: what is done on it, cold and then perhaps warm.
Action = Callable[[Client, Path], float]


@dataclass(frozen=True)
class Session:
    """A workload on a fresh mount."""

    name: str
    unit: str
    better: Literal["less", "more"]
    action: Action
    layer: Layer = "tree"
    warm: bool = False

    def titles(self) -> Mapping[str, tuple[str, Literal["less", "more"]]]:
        """Name what it measures."""
        passes = ("cold", "warm") if self.warm else ("cold",)
        return {f"{self.name}, {which}": (self.unit, self.better) for which in passes}

    def on(self, contender: Contender, client: Client) -> RunMany:
        """Return a run that does it on a fresh mount of *contender*."""

        def run() -> dict[str, Sample]:
            with contender(self.layer) as served:
                return {title: self._pass(served, client) for title in self.titles()}

        return run

    def _pass(self, served: Served, client: Client) -> Sample:
        before = served.cpu()
        value = self.action(client, served.path)
        return Sample(value, {"daemon CPU s": served.cpu() - before} if served.pid else {})


def _shell(command: str) -> Action:
    def action(_: Client, directory: Path) -> float:
        start = time.perf_counter()
        done = subprocess.run(
            ["sh", "-c", command], cwd=directory, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotAble(done.stderr.strip()[-160:])
        return time.perf_counter() - start

    return action


def _client(operation: str, clients: int = 1) -> Action:
    scale = 1e6 if operation == "cat" else 1.0
    return lambda client, directory: client.run(operation, directory, clients) / scale


SESSIONS = (
    Session("stat", "1/s", "more", _client("stat"), warm=True),
    Session("find", "entries/s", "more", _client("find"), warm=True),
    Session("open+read+close", "1/s", "more", _client("read"), warm=True),
    Session("tar", "s", "less", _shell("tar -cf - . | cat >/dev/null")),
    Session("grep -r", "s", "less", _shell("grep -r 'no such text' . || [ $? -eq 1 ]")),
    Session("two clients stat", "1/s", "more", _client("stat", 2)),
    Session("two clients open+read+close", "1/s", "more", _client("read", 2)),
    Session("1 GiB file", "MB/s", "more", _client("cat"), layer="big"),
)


def measurements(rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield the tables, session after session."""
    tree, big = inputs.get("a", "gzip", progress), inputs.get("big", "gzip", progress)
    with _space() as base:
        backing = Backing(base, tree, big)
        backing.prepare(progress)
        client = Client.compile(base, backing.native("tree"))
        contenders = backing.contenders()
        for session in SESSIONS:
            runs = [(name, "", session.on(contender, client)) for name, contender in contenders.items()]
            yield from measure_many(session.titles(), runs, rounds, progress)
        idle = [
            (name, "", _idle(contender))
            for name, contender in contenders.items()
            if name != "native directory"
        ]
        yield from measure_many({"daemon CPU while idle": ("s a second", "less")}, idle, 1, progress)


def _idle(contender: Contender) -> RunMany:
    def run() -> dict[str, Sample]:
        with contender("tree") as served:
            list(served.path.iterdir())
            before = served.cpu()
            time.sleep(_IDLE_SECONDS)
            return {"daemon CPU while idle": Sample((served.cpu() - before) / _IDLE_SECONDS)}

    return run


def _space() -> AbstractContextManager[Path]:
    return machine.fresh("tmpfs")


def _listing(tree: Path, *conditions: str) -> str:
    command = ["find", ".", "-mindepth", "1", *conditions, "-printf", "%P\\n"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
