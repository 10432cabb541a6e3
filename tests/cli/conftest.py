"""A command line of its own for each test: no configuration, login or store of whoever runs the tests."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.daemon import LAYERFS, clean_environment
from tests.support.forkserver import ForkServer

_REPOSITORY = Path(__file__).parents[2]

Done = subprocess.CompletedProcess[str]


class CommandLine:
    """Runs ``layerfs`` with a store and a home of its own."""

    def __init__(self, home: Path, server: ForkServer) -> None:
        self.home = home
        self.server = server
        self.store = home / "store"
        (home / "run").mkdir(mode=0o700, exist_ok=True)  # podman wants it
        self.environment = {
            name: value
            for name, value in clean_environment().items()
            if not name.startswith("XDG_") and name not in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG")
        } | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "LAYERFS_STORE": str(self.store),
            "PYTHONPATH": str(_REPOSITORY),
            "PATH": f"{Path(LAYERFS[0]).parent}:{os.environ['PATH']}",
        }

    def __call__(
        self,
        *arguments: str | Path,
        code: int | None = 0,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        """Run one command to its end, without a traceback; its exit code must be *code*, or any for None."""
        done = self.server.run(
            [*map(str, arguments)],
            stdin=stdin,
            environment=self.environment | dict(environment or {}),
            cwd=cwd or self.home,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert code in (None, done.returncode), f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
        return done


@pytest.fixture(scope="session")
def _fork_server(_nothing_is_left_over: None) -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@pytest.fixture
def layerfs(tmp_path: Path, _fork_server: ForkServer) -> CommandLine:
    """The command line."""
    home = tmp_path / "home"
    home.mkdir()
    return CommandLine(home, _fork_server)
