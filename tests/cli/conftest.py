"""A command line of its own for each test: no configuration, login or store of whoever runs the tests."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.daemon import LAYERFS, clean_environment

_REPOSITORY = Path(__file__).parents[2]

Done = subprocess.CompletedProcess[str]


class CommandLine:
    """Runs ``layerfs`` with a store and a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
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
        code: int = 0,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        """Run one command to its end; its exit code must be *code*, and it must never show a traceback."""
        done = subprocess.run(
            [*LAYERFS, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment | dict(environment or {}),
            cwd=cwd or self.home,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
        return done


@pytest.fixture
def layerfs(tmp_path: Path) -> CommandLine:
    """The command line."""
    home = tmp_path / "home"
    home.mkdir()
    return CommandLine(home)
