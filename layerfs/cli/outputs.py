"""What a verb writes: a file or a directory that has its name only when it is complete."""

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from layerfs.errors import UsageError

Write = Callable[[bytes], object]

_CHUNK: Final = 1 << 20


def require_output(verb: str, name: str, *, directory: bool = False) -> None:
    """Raise UsageError if *verb* cannot write to *name*; ``-`` is standard output."""
    if name == "-":
        if sys.stdout.isatty():
            raise UsageError(
                f"{verb}: standard output is a terminal (say -o FILE, or pipe it into a program)"
            )
        return
    if not Path(name).parent.is_dir():
        raise UsageError(f"--output {name}: no directory {Path(name).parent} (expected an existing one)")
    if directory:
        _require_empty(name)
    elif Path(name).is_dir():
        raise UsageError(f"--output {name}: a directory (expected a file, or a name that is free)")


@contextmanager
def output_file(name: str) -> Iterator[Write]:
    """Yield how to write; a file gets its name only when it is complete. Raises OSError."""
    if name == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    final = Path(name)
    if final.exists() and not final.is_file():  # a device or a pipe: it is there to be written to
        with final.open("wb", buffering=_CHUNK) as stream:
            yield stream.write
        return
    temporary = _beside(final)
    try:
        with temporary.open("xb", buffering=_CHUNK) as file:
            yield file.write
        temporary.replace(final)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def output_directory(name: str) -> Iterator[Path]:
    """Yield an empty directory, which gets its name at the end; an empty one of that name makes way.

    Raises UsageError for one that is not empty, OSError.
    """
    import shutil

    _require_empty(name)
    final = Path(name)
    temporary = _beside(final)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _require_empty(name: str) -> None:
    final = Path(name)
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise UsageError(f"--output {name}: is there already (expected a new or an empty directory)")


def _beside(final: Path) -> Path:
    return final.with_name(f".{final.name}.{secrets.token_hex(8)}")
