"""Where the tools of the field read an archive as layerfs does not: a table of docs/compatibility.md.

A row is about one shape of `tests.support.random_archives`. What no row names must come out equal.
"""

from dataclasses import dataclass
from typing import Final, Literal

Peer = Literal["GNU tar", "bsdtar", "umoci"]
_ALL: Final[tuple[Peer, ...]] = ("GNU tar", "bsdtar", "umoci")
_TARS: Final[tuple[Peer, ...]] = ("GNU tar", "bsdtar")


@dataclass(frozen=True, slots=True)
class Difference:
    """One shape that some tools read in another way than layerfs."""

    shapes: tuple[str, ...]
    peers: tuple[Peer, ...]
    they: str
    layerfs: str
    """What it does instead, and why."""

    def row(self) -> str:
        """Return the row of the document."""
        return f"| {'; '.join(self.shapes)} | {', '.join(self.peers)} | {self.they} | {self.layerfs} |"


DIFFERENCES: Final = (
    Difference(("an entry below a symlink",), ("GNU tar", "umoci"), "follow it", "refuses: see above"),
    Difference((".. in a name",), ("umoci",), "clamps it", "refuses, as GNU tar and bsdtar do"),
    Difference(("an entry below a marker",), _ALL, "obey it, or know no markers", "refuses: see above"),
    Difference(
        ("a 0:0 device", "a socket"),
        _ALL,
        "make it, a socket as an empty file",
        "skips it with a warning: the first is a whiteout of overlayfs, nobody listens on the second",
    ),
    Difference(
        ("a whiteout that is a fifo", "a whiteout that is a device"),
        _TARS,
        "make it: they know no markers",
        "makes an empty file: only the name counts",
    ),
    Difference(
        ("a whiteout that is a hard link to nothing",),
        _TARS,
        "refuse the link",
        "takes it for the marker that AUFS wrote so",
    ),
    Difference(
        ("a hard link before its target", "a hard link to nothing", "a hard link to itself"),
        _ALL,
        "refuse it where it stands",
        "waits until the end: some target may come, or another entry in place of the link",
    ),
    Difference(
        ("an unknown type",),
        _TARS,
        "take it for a file",
        "refuses, as umoci does: nobody knows what it means",
    ),
    Difference(("a continued file",), ("bsdtar",), "takes it for a file", "refuses: see above"),
    Difference(("a symlink to nothing",), ("bsdtar",), "makes something else", "refuses, as the kernel does"),
    Difference(
        ("a block of zeros inside", "a block that is no header"),
        _TARS,
        "stop there (GNU tar at zeros, bsdtar at both)",
        "refuses, as umoci does: what follows would be lost without a word",
    ),
    Difference(
        ("a directory with content, then a file", "a directory with content, then a symlink"),
        _TARS,
        "keep the directory, and say so",
        "replaces it, as umoci does: the last entry of a name counts",
    ),
    Difference(
        ("a directory, then a file", "a directory, then a symlink"),
        ("GNU tar",),
        "gives the file the attributes of the directory",
        "gives it its own",
    ),
    Difference(
        ("a directory, then a directory", "a directory with content, then a directory"),
        ("bsdtar",),
        "keeps the times of the first",
        "takes those of the last, as the others do",
    ),
    Difference(
        ("a symlink, then a symlink",),
        ("GNU tar",),
        "keeps the first, if the target of the second is absolute or has `..`",
        "takes the last",
    ),
    Difference(
        ("/./ inside",),
        ("GNU tar",),
        "cannot replace a file by a directory that is called `a/./`",
        "replaces it, as the others do",
    ),
    Difference(
        ("a setgid directory",),
        ("umoci",),
        "lets directories without an entry inherit group and bit",
        "makes them root's, 0755",
    ),
    Difference(
        ("a slash behind a file's name",),
        _TARS,
        "make a directory",
        "makes the file, as umoci does: type 0 is a file, only type NUL is either",
    ),
    Difference(
        ("NULs in front of numbers",),
        _TARS,
        "read 0 (GNU tar skips one NUL)",
        "reads the number behind them, as umoci does",
    ),
    Difference(
        ("PAX uid -2", "base-256 uid -2"),
        ("GNU tar",),
        "says that it is out of range",
        "makes it 4294967294, as umoci and bsdtar do",
    ),
    Difference(
        ("empty PAX records", "PAX records taken back"),
        _TARS,
        "refuse the record (GNU tar), or read 0 (bsdtar)",
        "lets the header count, as POSIX says and umoci does",
    ),
    Difference(
        ("a PAX time with a negative fraction",),
        ("bsdtar",),
        "adds the fraction instead of subtracting it",
        "subtracts it, as the others do",
    ),
    Difference(
        ("a global PAX header",),
        ("bsdtar", "umoci"),
        "ignore it (bsdtar), or refuse it (umoci)",
        "lets it count, as POSIX says and GNU tar does",
    ),
    Difference(
        ("xattrs as libarchive writes them",),
        ("GNU tar", "umoci"),
        "do not know them",
        "keeps them, as bsdtar does",
    ),
    Difference(("an empty xattr",), ("umoci",), "drops it", "keeps it, as the others do"),
    Difference(
        ("a size on a hard link",),
        ("bsdtar",),
        "takes what follows for content, if the archive has PAX headers",
        "takes it for the next header, as the others do: the size is that of the target",
    ),
    Difference(
        ("a sparse file of broken blocks",),
        ("GNU tar",),
        "expects each piece to begin on a block",
        "reads them one behind the other, as the others do; GNU tar writes no such pieces",
    ),
    Difference(
        ("an old GNU sparse file", "a dump directory", "a volume label", "a Solaris header", "type 7"),
        ("umoci",),
        "refuses the type",
        "reads it, as the others do",
    ),
)

EXCUSED: Final[dict[str, frozenset[str]]] = {
    peer: frozenset(shape for row in DIFFERENCES if peer in row.peers for shape in row.shapes)
    for peer in _ALL
}
"""By tool, the shapes that it may read in its own way."""


def table() -> str:
    """Return the table of the document."""
    head = "| shape | tools | what they do | layerfs |\n|---|---|---|---|\n"
    return head + "\n".join(row.row() for row in DIFFERENCES) + "\n"
