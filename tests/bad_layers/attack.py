"""What a row of the hostile table is, and short words to build rows with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from layerfs.errors import InvalidLayer
from tests.support.rawtar import DIRECTORY, HARDLINK, SYMLINK, archive, header

UP = b"../../../outside"
"""Leads from the root of a layer to the directory that no layer may touch."""
PWNED = b"this is a path escape"
MIB = 1 << 20

Build = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Attack:
    """One row."""

    name: str
    build: Build
    """Makes the blob; takes the path of the directory outside."""
    refused: type[InvalidLayer] | None = None
    says: Sequence[str] = ()
    """Parts of the error's text: the entry, the reason."""
    leaves: frozenset[str] | None = frozenset()
    """Names in the tree of an accepted layer; None if they depend on the path outside."""
    escapes: bool = False
    """Whether it gets out of a writer without guards."""
    budgets: dict[str, Any] = field(default_factory=dict)


class Table:
    """Rows in the making."""

    def __init__(self) -> None:
        self.rows: list[Attack] = []

    def refused(
        self, name: str, error: type[InvalidLayer], says: Sequence[str], *parts: bytes, **more: Any
    ) -> None:
        """Add a row that must be refused."""
        self.rows.append(Attack(name, lambda _: archive(*parts), error, says, **more))

    def accepted(self, name: str, leaves: str, *parts: bytes, **more: Any) -> None:
        """Add a row that must be accepted and leave these names."""
        self.rows.append(Attack(name, lambda _: archive(*parts), leaves=frozenset(leaves.split()), **more))

    def built(self, name: str, build: Build, error: type[InvalidLayer] | None = None, **more: Any) -> None:
        """Add a row whose archive depends on the path of the directory outside."""
        self.rows.append(Attack(name, build, error, **more))


def symlink(name: bytes, target: bytes, **fields: Any) -> bytes:
    """Return a symlink's member."""
    return header(name, SYMLINK, link=target, **fields)


def hardlink(name: bytes, target: bytes, **fields: Any) -> bytes:
    """Return a hard link's member."""
    return header(name, HARDLINK, link=target, **fields)


def directory(name: bytes, **fields: Any) -> bytes:
    """Return a directory's member."""
    return header(name, DIRECTORY, **fields)
