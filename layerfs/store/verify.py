"""Reading again what was stored: files against digests, directories against what a second making gives.

Decides what counts as a difference; changes nothing and never fails on a file that is not as it should be.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from errno import ENXIO
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import StoreError
from layerfs.layer.escaping import escaped
from layerfs.layer.kinds import is_whiteout
from layerfs.layer.paths import shown
from layerfs.layer.record import Extraction, LayerRecord
from layerfs.layer.tables import rows
from layerfs.oci import Digest
from layerfs.store.layout import RECORD_SUFFIX
from layerfs.store.records import after_head, read_tables
from layerfs.store.staging import StagedTree
from layerfs.store.xattrs import read_all

Spent = Callable[[int], None]
"""Is told of bytes that were read, and may wait."""

_CHUNK: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE: Final = 2048
"""Bytes of a path that is opened at once: half of PATH_MAX, more than a name."""
_TYPES: Final = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}

_Links = dict[tuple[int, int], tuple[int, int]]
"""The file that is in the place of one with several names."""


def unlimited(_: int) -> None:
    """Wait for nothing."""


def file_problem(path: Path, digest: Digest, what: str = "the blob", spent: Spent = unlimited) -> str | None:
    """Say what is wrong with *what* at *path*; None if its bytes hash to *digest*."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        return f"{what} cannot be read: {exc.strerror} ({path})"
    try:
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return f"{what} is not a regular file ({path})"
            hasher = digest.hasher()
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                spent(len(chunk))
    except OSError as exc:
        return f"{what} cannot be read: {exc.strerror} ({path})"
    found = Digest.finish(digest.algorithm, hasher)
    return None if found == digest else f"{what} hashes to {found} ({path})"


def layer_differences(
    found: Path, record: LayerRecord, again: StagedTree, extraction: Extraction, spent: Spent = unlimited
) -> Iterator[str]:
    """Yield how the layer directory *found* and its *record* differ from a second extraction, *again*."""
    expected = msgspec.structs.asdict(extraction)
    for name, value in msgspec.structs.asdict(record.layer).items():
        if value != expected[name]:
            yield f"the record says {name} {value} (expected {expected[name]})"
    tables = b"".join(again.tables.read())
    try:
        kept = read_tables(found.with_name(found.name + RECORD_SUFFIX))
        if b"".join((kept.whiteouts, kept.opaques, kept.implied, kept.lost)) != tables:
            yield "the record lists other markers, or other attributes that the disk cannot hold"
    except StoreError as exc:
        yield str(exc)
    whiteouts, opaques, implied, _ = extraction.tables
    start = whiteouts + opaques
    untimed = rows(tables[start : start + implied])
    if not record.escaped:
        yield from tree_differences(found, again.path, frozenset(untimed), spent)
        return
    for line in tree_differences(found, again.path, frozenset(map(escaped, untimed)), spent):
        yield f"{line} (here .%. stands for .wh.)" if ".%." in line else line


def tree_differences(
    found: Path, expected: Path, untimed: Collection[bytes] = frozenset(), spent: Spent = unlimited
) -> Iterator[str]:
    """Yield how the directory *found* differs from *expected*, a line for each aspect of each entry.

    The times of whiteout devices and of the directories *untimed* are those of their extraction.
    """
    yield from Comparison(untimed, spent).of(found, expected)


class Comparison:
    """How entries of two directories are compared: byte by byte, and every attribute."""

    reference = "the archive"
    """What the expected directory was made of."""
    times_ns = 1
    """How exact its times are: those that are more so are rounded, half up."""

    def __init__(self, untimed: Collection[bytes], spent: Spent) -> None:
        self.untimed = untimed
        self.spent = spent
        self.links: _Links = {}

    def of(self, found: Path, expected: Path) -> Iterator[str]:
        """Yield what is different."""
        roots = os.fsencode(found), os.fsencode(expected)
        yield from _entry(b"", *roots, self)
        waiting = [b""]
        while waiting:
            directory = waiting.pop()
            try:
                with _opened(roots[0], directory) as here, _opened(roots[1], directory) as there:
                    names = {os.fsencode(name) for fd in (here, there) for name in os.listdir(fd)}
                    for name in sorted(names):
                        path = os.path.join(directory, name)
                        both = (b"/proc/self/fd/%d/%b" % (here, name), b"/proc/self/fd/%d/%b" % (there, name))
                        yield from _entry(path, *both, self)
                        if all(map(_is_directory, both)):
                            waiting.append(path)
            except OSError as exc:
                yield f"{shown(directory)}: cannot be read: {exc.strerror}"

    def wanted_attributes(self, there: bytes) -> Mapping[bytes, bytes]:
        """Return the extended attributes that are expected. Raises OSError."""
        return read_all(there)

    def same_bytes(self, here: bytes, there: bytes) -> bool:
        """Say whether two files of one size hold the same. Raises OSError."""
        return _same_bytes(here, there, self.spent)


class _Stubs(Comparison):
    """Files without bytes: an attribute says which they have."""

    reference = "the TOC"

    def same_bytes(self, here: bytes, there: bytes) -> bool:
        """Say whether neither has any. Raises OSError."""
        return os.lstat(here).st_size == 0 or not _has_data(here)


def skeleton_differences(
    found: Path, record: LayerRecord, again: StagedTree, extraction: Extraction
) -> Iterator[str]:
    """Yield how the skeleton *found* and its *record* differ from a second one, *again*."""
    if record.layer != extraction:
        yield "the record says something else than its TOC"
    path = found.with_name(found.name + RECORD_SUFFIX)
    if b"".join(after_head(path)) != b"".join(again.tables.read()):
        yield f"the record lists something else than its TOC ({path})"
    untimed = frozenset(rows(read_tables(path).implied))
    yield from _Stubs(untimed, unlimited).of(found, again.path)


def _has_data(path: bytes) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == ENXIO:
            return False
        raise
    finally:
        os.close(fd)
    return True


@contextmanager
def _opened(root: bytes, path: bytes) -> Iterator[int]:
    """Open a directory below *root*, whose path may be longer than the kernel takes one. Raises OSError."""
    fd = os.open(root, _DIRECTORY)
    try:
        while path:
            piece = path if len(path) <= _PIECE else path[:_PIECE].rpartition(b"/")[0]
            path = path[len(piece) + 1 :]
            above, fd = fd, os.open(piece, _DIRECTORY, dir_fd=fd)
            os.close(above)
        yield fd
    finally:
        os.close(fd)


def _is_directory(path: bytes) -> bool:
    return os.path.lexists(path) and stat.S_ISDIR(os.lstat(path).st_mode)


def _entry(path: bytes, here: bytes, there: bytes, how: Comparison) -> Iterator[str]:
    try:
        for problem in _differences(here, there, how, timed=path not in how.untimed):
            yield f"{shown(path)}: {problem}"
    except OSError as exc:
        yield f"{shown(path)}: cannot be read: {exc.strerror}"


def _differences(here: bytes, there: bytes, how: Comparison, *, timed: bool) -> Iterator[str]:
    if not os.path.lexists(there):
        yield f"not in {how.reference}"
        return
    if not os.path.lexists(here):
        yield "missing"
        return
    found, expected = os.lstat(here), os.lstat(there)
    types = [_TYPES[stat.S_IFMT(status.st_mode)] for status in (found, expected)]
    if types[0] != types[1]:
        yield f"{types[0]} (expected {types[1]})"
        return
    unit = how.times_ns if timed and not is_whiteout(expected.st_mode, expected.st_rdev) else 0
    for name, one, other in zip(
        ("mode", "owner", "device", "mtime"), _about(found, unit), _about(expected, unit), strict=True
    ):
        if one != other:
            yield f"{name} {one} (expected {other})"
    attributes, wanted = read_all(here), how.wanted_attributes(there)
    wrong = {name for name in {*attributes, *wanted} if attributes.get(name) != wanted.get(name)}
    if wrong:
        yield f"other extended attributes than in {how.reference}: {', '.join(map(shown, sorted(wrong)))}"
    yield from _content_differences(here, there, (found, expected), how)


def _about(status: os.stat_result, unit: int) -> tuple[str, str, str, str]:
    device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    owner = f"{status.st_uid}:{status.st_gid}"
    mtime = f"{(status.st_mtime_ns + unit // 2) // unit * unit} ns" if unit else ""
    return f"{stat.S_IMODE(status.st_mode):04o}", owner, device, mtime


def _content_differences(
    here: bytes, there: bytes, statuses: tuple[os.stat_result, os.stat_result], how: Comparison
) -> Iterator[str]:
    found, expected = statuses
    if stat.S_ISLNK(expected.st_mode) and os.readlink(here) != os.readlink(there):
        yield f"leads elsewhere than in {how.reference}"
    if not stat.S_ISDIR(expected.st_mode):
        if found.st_nlink != expected.st_nlink:
            yield f"{found.st_nlink} hard links (expected {expected.st_nlink})"
        elif expected.st_nlink > 1:
            own = (found.st_dev, found.st_ino)
            if how.links.setdefault((expected.st_dev, expected.st_ino), own) != own:
                yield f"a hard link to another file than in {how.reference}"
    if stat.S_ISREG(expected.st_mode):
        if found.st_size != expected.st_size:
            yield f"{found.st_size} bytes (expected {expected.st_size})"
        elif not how.same_bytes(here, there):
            yield f"other bytes than in {how.reference}"


def _same_bytes(here: bytes, there: bytes, spent: Spent) -> bool:
    with open(here, "rb", buffering=0) as one, open(there, "rb", buffering=0) as other:
        while True:
            pieces = one.read(_CHUNK), other.read(_CHUNK)
            if pieces[0] != pieces[1]:
                return False
            if not pieces[0]:
                return True
            spent(2 * len(pieces[0]))
