"""The budget on what is kept until the end of an archive, and what of it stays beside the tree.

Paths of markers, of implied directories and of links that wait; metadata that the disk cannot hold.

Counts only.
"""

from typing import Final

from layerfs.errors import BudgetExceeded
from layerfs.layer.paths import shown

_EACH: Final = 160
"""Bytes that a path takes beside its own, in lists and sets, about."""
_EACH_LOST: Final = 16
"""The same for metadata that the disk cannot hold: where a user may change no owner, each file has some."""


class Remembered:
    """Counts what is remembered. What is forgotten again stays counted: an archive may not make it churn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def add(self, path: bytes, size: int = 0) -> None:
        """Count *path*, and *size* bytes that go with it. Raises BudgetExceeded."""
        self._take(len(path) + size + _EACH, path, "marker, implied directory, skipped entry or late link")

    def lose(self, path: bytes, size: int) -> None:
        """Count *size* bytes of metadata of *path* that the disk cannot hold. Raises BudgetExceeded."""
        self._take(
            len(path) + size + _EACH_LOST, path, "attribute, owner or device that this disk cannot hold"
        )

    def _take(self, size: int, path: bytes, what: str) -> None:
        self._left -= size
        if self._left < 0:
            raise BudgetExceeded(f"{shown(path)}: one {what} too many (max_record_bytes is {self._most})")
