"""Whether layers are still where they were found: what a removed one does not answer is not absent.

A layer is evicted while the kernel knows nodes of it. So an answer counts only if the layers were there
before and after it was given; whoever asks waits for what has gone. As long as no layer came or went in the
store this costs one fstat(2).
"""

import time
from collections.abc import Callable, Iterable
from errno import EIO
from typing import Final, Protocol, TypeVar

from layerfs.needs import Need

T = TypeVar("T")


class Changing(Protocol):
    """Where names come and go."""

    def changed_ns(self) -> int:
        """Return when one came or went last. Raises OSError."""


class Several:
    """Several directories, as one."""

    def __init__(self, directories: Iterable[Changing]) -> None:
        self._directories = tuple(dict.fromkeys(directories))

    def changed_ns(self) -> int:
        """Return when a name came or went last in one of them. Raises OSError."""
        return max(directory.changed_ns() for directory in self._directories)


_TICK_NS: Final = 50_000_000
"""Two changes of a directory as close as this may show one time: the kernel counts in ticks of some ms."""
_ROUNDS: Final = 100


class Presence:
    """Some layers in one directory; *lacking* says what to obtain, None while all are there."""

    __slots__ = ("_settled_ns", "directory", "lacking")

    def __init__(self, directory: Changing, lacking: Callable[[], Need | None]) -> None:
        self.directory = directory
        self.lacking = lacking
        self._settled_ns = -1
        """When the directory had changed last as the layers were there; -1 for not known."""

    def trust(self, ask: Callable[[], T]) -> T | Need:
        """Return what *ask* answers, or the need for what has gone. Raises what *ask* raises."""
        try:
            found = ask()
        except FileNotFoundError:
            if self.directory.changed_ns() == self._settled_ns:
                raise
        else:
            if self.directory.changed_ns() == self._settled_ns:
                return found
        return self._ask_again(ask)

    def _ask_again(self, ask: Callable[[], T]) -> T | Need:
        for _ in range(_ROUNDS):
            changed_ns = self.directory.changed_ns()
            need = self.lacking()
            if need is not None:
                return need
            try:
                found = ask()
            except FileNotFoundError:
                if self._is_undisturbed(changed_ns):
                    raise
            else:
                if self._is_undisturbed(changed_ns):
                    return found
        raise OSError(EIO, "layers come and go too fast")

    def _is_undisturbed(self, since_ns: int) -> bool:
        """Say whether all is as it was when the directory had changed last at *since_ns*."""
        if self.directory.changed_ns() != since_ns or self.lacking() is not None:
            return False
        if time.time_ns() - since_ns > _TICK_NS:
            self._settled_ns = since_ns
        return True
