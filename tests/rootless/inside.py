"""A process with other rights, or in another namespace, that calls functions and returns what they return.

``python -m tests.rootless.inside`` reads pickled calls from stdin and writes pickled answers to stdout. Only
functions that can be imported by name can be called.
"""

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Inside:
    """The test's side: a process that *prefix* starts. A context manager."""

    def __init__(self, prefix: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.rootless.inside"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return what *function* returns there. Raises what it raises."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((function, arguments, named), self._process.stdin)
        self._process.stdin.flush()
        succeeded, value = pickle.load(self._process.stdout)
        if not succeeded:
            raise value
        return value  # type: ignore[no-any-return]  # a pickle has no type

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=60)


def main() -> None:
    while True:
        try:
            function, arguments, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (True, function(*arguments, **named))
        except Exception as exc:  # noqa: BLE001 - it is the test's to judge
            answer = (False, exc)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
