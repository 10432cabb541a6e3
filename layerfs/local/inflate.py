"""Archives that were compressed as a whole (``docker save … | gzip``): inflated once into a nameless file.

Members must be found by offset, which a compressed stream does not have. Called by `archive`.
"""

import bz2
import gzip
import lzma
import os
import tempfile
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import IO, Any, Final
from zlib import error as zlib_error

from layerfs.errors import BudgetExceeded, InvalidArchive, StoreError, StoreFull
from layerfs.layer.record import Budgets

_CHUNK: Final = 1 << 20
_UNJUDGED: Final = 64 << 20
"""Bytes before the ratio is looked at, as for layers."""

_OPENERS: Final[tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...]] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
)
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def inflated(path: Path, head: bytes) -> IO[bytes] | None:
    """Return a nameless file with the plain archive; None if *path*, which begins with *head*, is one.

    It lies in $TMPDIR, else /var/tmp. Raises InvalidArchive, BudgetExceeded, StoreFull, StoreError.
    """
    if head.startswith(_ZSTD):
        raise InvalidArchive(f"{path}: compressed with zstd (expected a plain tar or gzip; unzstd it first)")
    opener = next((opener for magic, opener in _OPENERS if head.startswith(magic)), None)
    if opener is None:
        return None
    target = tempfile.TemporaryFile(dir=os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108, SIM115 - nameless; the caller closes it
    try:
        with path.open("rb") as source:
            _copy(opener(source), target, path)
    except (EOFError, zlib_error, lzma.LZMAError, gzip.BadGzipFile) as exc:
        target.close()
        raise InvalidArchive(f"{path}: damaged: {exc}") from exc
    except OSError as exc:
        target.close()
        family = StoreFull if exc.errno in (ENOSPC, EDQUOT) else StoreError
        raise family(f"{path}: cannot be inflated: {exc.strerror or exc} (TMPDIR names the place)") from exc
    except BaseException:
        target.close()
        raise
    return target


def _copy(source: Any, target: IO[bytes], path: Path) -> None:
    most = max(_UNJUDGED, path.stat().st_size * Budgets().max_ratio)
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > most:
            raise BudgetExceeded(f"{path}: inflates to more than {most} bytes (max_ratio)")
        target.write(chunk)
    target.flush()
