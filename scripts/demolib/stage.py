"""Shows shell commands before their output, and checks what came of them.

A failed command or check raises `Failed`, whose text says what was expected and what was found.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from string import Template
from typing import TextIO

_BOLD, _DIM, _GREEN, _RED, _PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"
_SECONDS = 120


class Failed(Exception):
    """The demonstration did not show what it promises."""


class Stage:
    """Runs commands in one shell environment; colours only on a terminal."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._coloured = out.isatty() and not os.environ.get("NO_COLOR")
        self._variables: dict[str, str] = {}

    def title(self, text: str) -> None:
        """Open a part of the story."""
        self._write(f"\n{self._in(_BOLD, text)}\n")

    def let(self, name: str, value: str) -> None:
        """Set a shell variable for the commands to come, and show it; *value* may name earlier ones."""
        self._variables[name] = Template(value).substitute(self._variables)
        self._write(f"{self._in(_DIM, '$')} {self._in(_BOLD, f'{name}={value}')}\n")

    def run(self, command: str) -> str:
        """Show *command*, run it with bash, show and return its output. Raises Failed if it fails."""
        self._write(f"{self._in(_DIM, '$')} {self._in(_BOLD, command)}\n")
        done = subprocess.run(
            ["bash", "-c", command],
            env=os.environ | self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
        self._write(done.stdout)
        if done.returncode:
            raise Failed(f"{command}\n  expected: exit status 0\n  found:    {done.returncode}")
        return done.stdout

    def check(self, claim: str, *, expected: object, found: object) -> None:
        """State *claim* as proved. Raises Failed unless the two are equal."""
        if expected != found:
            raise Failed(f"{claim}\n  expected: {_show(expected)}\n  found:    {_show(found)}")
        self._write(f"{self._in(_GREEN, '✓' if self._coloured else 'ok:')} {claim}\n")

    def complain(self, problem: str) -> None:
        """Say what went wrong."""
        self._write(f"\n{self._in(_RED, 'FAILED')}: {problem}\n")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _show(value: object) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return str(value)
