"""Small files and directories: written whole or not at all, read without trust.

Knows nothing of images; must never import another module of this package, `layout` excepted.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from errno import EACCES, EIO, EISDIR, ELOOP, ENOTDIR, EPERM
from io import FileIO
from pathlib import Path
from typing import Final

from layerfs.errors import StoreDamaged, StoreError
from layerfs.host.files import read_opened
from layerfs.host.oserrors import disk_errors, store_error


def utf8_path(path: str | os.PathLike[str]) -> Path:
    """Return *path* absolute. Raises StoreError if it is not UTF-8: messages to workers are JSON."""
    absolute = Path(path).absolute()
    try:
        str(absolute).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise StoreError(f"{os.fsencode(absolute)!r}: not UTF-8 (expected a path that is)") from exc
    return absolute


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of *data*; write(2) may take less than it is given. Raises OSError."""
    rest = memoryview(data)
    while rest:
        taken = os.write(fd, rest)
        if taken == 0:
            raise OSError(EIO, "the file accepts no more bytes")
        rest = rest[taken:]


FILE_MODE: Final = 0o644
"""The mode of the store's files, whatever the umask: its directories say who gets at them."""
DIRECTORY_MODE: Final = 0o755


def make_directories(path: Path, mode: int = DIRECTORY_MODE, above: int = DIRECTORY_MODE) -> None:
    """Make *path* with *mode*, and what is missing above it with *above*, whatever the umask. Raises OSError.

    A setgid bit that is inherited stays.
    """
    if not path.parent.exists():
        make_directories(path.parent, above, above)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        os.chmod(path, mode | os.lstat(path).st_mode & stat.S_ISGID)


def sync_directory(path: Path) -> None:
    """Make the names in *path* durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(
    temporary: Path, final: Path, data: bytes, more: Iterable[bytes] = (), *, waiting: bool = True
) -> None:
    """Write *data* and *more* to *temporary*, fsync, rename to *final*, fsync the directory. Raises OSError.

    Leaves no *temporary* behind unless the process is killed. Without *waiting* for the disk a reboot may
    lose it: for what means nothing after one.
    """
    try:
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
        )
        try:
            os.fchmod(fd, FILE_MODE)
            write_all(fd, data)
            for piece in more:
                write_all(fd, piece)
            if waiting:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if waiting:
        sync_directory(final.parent)


def unlink(path: Path) -> bool:
    """Remove a file; True if there was one. Raises StoreReadOnly, StoreError."""
    with disk_errors(f"{path}: cannot remove"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
    return True


def read_small(path: Path | str, limit: int) -> bytes | None:
    """Return the content of a regular file of at most *limit* bytes, None if there is none.

    Raises StoreDamaged for anything that the store cannot have written there: a symlink, a
    directory, a file that is too long or may not be read.
    """
    with opened_file(path) as file:
        return None if file is None else read_opened(file, limit)


@contextlib.contextmanager
def opened_file(path: Path | str) -> Iterator[FileIO | None]:
    """Open a regular file for reading in the block, None if there is none. Raises as `read_small` does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    except OSError as exc:
        if exc.errno in (ELOOP, EISDIR, ENOTDIR, EACCES, EPERM, EIO):
            raise StoreDamaged(f"{path}: {exc.strerror} (expected a readable file)") from exc
        raise store_error(exc, str(path)) from exc
    try:
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StoreDamaged(f"{path}: not a regular file")
            yield file
    except OSError as exc:
        raise StoreDamaged(f"{path}: {exc.strerror} (expected a readable file)") from exc


def file_size(path: Path | str) -> int | None:
    """Return the size of a regular file in bytes; None for anything else, a link to one included."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
