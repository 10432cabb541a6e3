"""The budget on what is kept until the end of an archive: paths of markers, of implied directories, of links.

Counts only.
"""

from typing import Final

from layerfs.errors import BudgetExceeded
from layerfs.layer.paths import shown

_EACH: Final = 160
"""Bytes that a path takes beside its own, in lists and sets, about."""


class Remembered:
    """Counts what is remembered. What is forgotten again stays counted: an archive may not make it churn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def add(self, path: bytes, size: int = 0) -> None:
        """Count *path*, and *size* bytes that go with it. Raises BudgetExceeded."""
        self._left -= len(path) + size + _EACH
        if self._left < 0:
            raise BudgetExceeded(
                f"{shown(path)}: one marker, implied directory, skipped entry or late link too many "
                f"(max_record_bytes is {self._most})"
            )
