"""A terminal that shows what people see: tmux, of a given size, without its status line.

A program runs on it to its end, or until the test has seen enough; then the screen is read as lines.
"""

import contextlib
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support import clients

_CONFIGURATION = """\
set -g status off
set -g remain-on-exit on
set -g remain-on-exit-format ''
set -g default-terminal screen-256color
set -g escape-time 0
"""


class Screen:
    """A terminal, and what runs on it."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._socket = directory / "s"  # a short name: a socket's path has 107 bytes at most
        self._configuration = directory / "c"
        self._configuration.write_text(_CONFIGURATION)
        self._code = directory / "code"
        self._session = 0
        self._environment = {**environment, "LC_ALL": "C.UTF-8", "TERM": "xterm"}

    def start(
        self, command: Sequence[str], columns: int, lines: int, environment: Mapping[str, str] | None = None
    ) -> None:
        """Run *command* on an empty screen, with *environment* on top of the one of all that runs here."""
        self._session += 1
        more = [f"{name}={value}" for name, value in (environment or {}).items()]
        self._code.unlink(missing_ok=True)
        # pytest's workers have a size of their own in the environment, which is stronger than the screen's.
        line = shlex.join(["env", "-u", "COLUMNS", "-u", "LINES", "LC_ALL=C.UTF-8", *more, *command])
        # tmux may give a window its size when what runs in it has begun.
        line = f'until [ "$(stty size)" = "{lines} {columns}" ]; do sleep 0.02; done; {line}'
        line += f"; echo $? >{shlex.quote(str(self._code))}"  # what tmux says of it is missing at times
        self._tmux("new-session", "-d", "-s", self._target, "-x", str(columns), "-y", str(lines), line)

    def lines(self, *, joined: bool = False) -> list[str]:
        """Return what the screen shows and what went over its upper edge, blank lines at the end left out.

        What was too long for the screen is several lines, unless they are to be *joined*.
        """
        found = self._tmux("capture-pane", "-t", self._target, "-p", "-S", "-", *(["-J"] if joined else []))
        return [line.rstrip() for line in found.rstrip("\n").split("\n")]

    def wraps(self) -> list[str]:
        """Return the lines that were too long for the screen, which does not change any more."""
        return sorted({*self.lines(joined=True)} - {*self.lines()})

    def wait(self) -> int:
        """Wait until the program has ended; return its exit code."""
        clients.wait_until(lambda: self._said("#{pane_dead}") == "1")  # tmux has read all, and closed it
        clients.wait_until(lambda: self._code.exists() and self._code.read_text().endswith("\n"))
        return int(self._code.read_text())

    def wait_for(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen shows what is *seen*; return it."""
        found: list[str] = []

        def look() -> bool:
            found[:] = self.lines()
            return seen(found)

        clients.wait_until(look)
        return found

    def press(self, key: str) -> None:
        """Press a key, by tmux's name for it: ``C-c`` for instance."""
        self._tmux("send-keys", "-t", self._target, key)

    def close(self) -> None:
        """End the terminal, and with it what runs on it."""
        with contextlib.suppress(subprocess.CalledProcessError):  # nothing was started
            server = int(self._said("#{pid}"))
            self._tmux("kill-server")
            clients.wait_until(lambda: not clients.runs(server))

    @property
    def _target(self) -> str:
        return f"session{self._session}"

    def _said(self, form: str) -> str:
        return self._tmux("display-message", "-t", self._target, "-p", form).strip()

    def _tmux(self, *arguments: str) -> str:
        base = ["tmux", "-u", "-S", str(self._socket), "-f", str(self._configuration)]
        done = subprocess.run(
            [*base, *arguments], env=self._environment, capture_output=True, text=True, check=True
        )
        return done.stdout


@contextlib.contextmanager
def opened(environment: Mapping[str, str]) -> Iterator[Screen]:
    """Yield a terminal; it is closed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="tmux-") as directory:
        screen = Screen(Path(directory), environment)
        try:
            yield screen
        finally:
            screen.close()
