"""The archive of a blob, inflated by a process that can do nothing else.

It is ``python -m layerfs.extract.inflating``. The blob is its standard input, the archive its standard
output. Who asks for it judges the bytes.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from layerfs.compression import sniff
from layerfs.compression.base import Prefixed
from layerfs.compression.formats import NONE, SNIFFED
from layerfs.errors import InvalidArchive, LayerfsError, WorkerDied
from layerfs.extract.worker import confine_inflater
from layerfs.foreign import printable
from layerfs.host.priority import give_way, limit_memory
from layerfs.processes import spawning

_CHUNK: Final = 1 << 20
_DAMAGED: Final = 3
"""The exit status that says that the bytes are at fault."""


@contextmanager
def inflated(blob: Path, what: str) -> Iterator[Iterator[bytes]]:
    """Yield the uncompressed bytes of the file *blob*, in chunks, called *what* in errors.

    Reading raises InvalidArchive for a damaged stream, WorkerDied. Raises OSError where *blob* is not there.
    """
    with blob.open("rb", buffering=0) as source:
        process = subprocess.Popen(
            spawning.command(__name__),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=spawning.bare_environment(),
            start_new_session=True,
        )
    with process:
        try:
            yield _chunks(process, what)
        finally:
            process.kill()


def _chunks(process: subprocess.Popen[bytes], what: str) -> Iterator[bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    while chunk := process.stdout.read(_CHUNK):
        yield chunk
    said = printable(process.stderr.read(_CHUNK).decode("utf-8", "replace").strip())
    status = process.wait()
    if status == _DAMAGED:
        raise InvalidArchive(f"{what}: {said}")
    if status:
        raise WorkerDied(f"{what}: who inflates it {spawning.how_it_ended(status)}; try again")


def _inflate(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy what *source* is when it is inflated. Raises InvalidArchive, OutOfMemory, BrokenPipeError."""
    start = source.read(SNIFFED)
    form, raw = sniff(start), Prefixed(start, source)
    stream = raw if form is NONE else form.open(raw)
    buffer = memoryview(bytearray(_CHUNK))
    while size := stream.readinto(buffer):
        target.write(buffer[:size])
    target.flush()


def main() -> int:
    """Be the process."""
    give_way()
    limit_memory()
    confine_inflater()
    try:
        _inflate(sys.stdin.buffer, sys.stdout.buffer)
    except InvalidArchive as exc:
        sys.stderr.write(str(exc))
        return _DAMAGED
    except (LayerfsError, BrokenPipeError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
