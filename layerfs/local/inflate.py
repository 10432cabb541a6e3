"""Archives that were compressed as a whole (``docker save … | gzip``): inflated once into a nameless file.

Members must be found by offset, which a compressed stream does not have.
"""

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import IO, Final

from layerfs.compression import Stream, sniff
from layerfs.compression.formats import NONE
from layerfs.errors import BudgetExceeded, InvalidArchive
from layerfs.host.oserrors import store_error
from layerfs.layer.budgets import Budgets

_CHUNK: Final = 1 << 20
_UNJUDGED: Final = 64 << 20
"""Bytes before the ratio is looked at, as for layers."""


def inflated(path: Path, head: bytes) -> IO[bytes] | None:
    """Return a nameless file with the plain archive; None if *path*, which begins with *head*, is one.

    It lies in $TMPDIR, else /var/tmp. Raises InvalidArchive, BudgetExceeded, StoreFull, StoreError.
    """
    found = sniff(head)
    if found is NONE:
        return None
    target = tempfile.TemporaryFile(dir=os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108, SIM115 - nameless; the caller closes it
    try:
        with path.open("rb", buffering=0) as source, closing(found.open(source)) as stream:
            _copy(stream, target, path)
    except InvalidArchive as exc:
        target.close()
        raise InvalidArchive(f"{path}: damaged: {exc}") from exc
    except OSError as exc:
        target.close()
        raise store_error(exc, f"{path}: cannot be inflated (TMPDIR names the place)") from exc
    except BaseException:
        target.close()
        raise
    return target


def _copy(source: Stream, target: IO[bytes], path: Path) -> None:
    most = max(_UNJUDGED, path.stat().st_size * Budgets().max_ratio)
    size = 0
    buffer = memoryview(bytearray(_CHUNK))
    while read := source.readinto(buffer):
        size += read
        if size > most:
            raise BudgetExceeded(f"{path}: inflates to more than {most} bytes (max_ratio)")
        target.write(buffer[:read])
    target.flush()
