"""Layers one after another through one worker: whatever decodes them, nothing of them stays."""

import bz2
import gzip
import lzma
import resource
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import pytest
import zstandard

from layerfs.errors import InvalidArchive, OutOfMemory
from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.extract.job import ExtractJob
from layerfs.extract.worker import KEPT_MAX
from layerfs.processes import spawning
from tests.extract.extracting import Extract, digest_of
from tests.support.clients import wait_until
from tests.support.images import file, tar

ARCHIVE: Final = tar([file("f", b"x" * 3000)])


def _streamed(text: bytes, level: int) -> bytes:
    """Compress like the program: the size is not known, so the window is as large as the level has it."""
    writer = zstandard.ZstdCompressor(level=level).compressobj()
    return writer.compress(text) + writer.flush()


GROWTH_MAX: Final = 40 << 20
"""Bytes: stacks of threads and arenas of the allocator come and go; fifty decoders of 1 MB are more."""

COMPRESSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    **{f"gzip {level}": partial(gzip.compress, compresslevel=level) for level in (1, 6, 9)},
    **{f"zstd {level}": partial(_streamed, level=level) for level in (1, 3, 9, 19, 22)},
    **{f"bzip2 {level}": partial(bz2.compress, compresslevel=level) for level in (1, 9)},
    **{f"xz {level}": partial(lzma.compress, preset=level) for level in (0, 6, 9)},
}


def _held(pid: int) -> int:
    """Return what a process has for itself, and may not give back: resident or not."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"{pid} has no memory")


def _through_one_worker(extract: Extract, blob: bytes, number: int) -> int:
    """Extract *blob* again and again in one worker; return by how much that grew after the first ten."""
    job = extract.job(blob)
    targets = count()
    before = 0
    with closing(Extractor()) as extractor:
        for at in range(number):
            if at == 10:
                before = _held(extractor.pid)
            target = Path(f"{job.target}-{next(targets)}")
            target.mkdir()
            extractor.start(ExtractJob(blob=job.blob, target=str(target), digest=job.digest, size=job.size))
            with suppress(InvalidArchive):
                extractor.result()
        return _held(extractor.pid) - before


@pytest.mark.parametrize("how", COMPRESSIONS)
@pytest.mark.parametrize("end", ["sound", "damaged"])
def test_zstd_worker_leak(pool: ExtractorPool, memory: Path, how: str, end: str) -> None:
    blob = COMPRESSIONS[how](ARCHIVE)
    if end == "damaged":
        blob = blob[:-1]

    assert _through_one_worker(Extract(pool, memory), blob, 60) < GROWTH_MAX


@pytest.mark.long
@pytest.mark.parametrize("how", COMPRESSIONS)
def test_a_thousand_layers_leave_nothing_behind(pool: ExtractorPool, memory: Path, how: str) -> None:
    assert _through_one_worker(Extract(pool, memory), COMPRESSIONS[how](ARCHIVE), 1000) < GROWTH_MAX


def test_a_worker_that_has_grown_ends_after_its_job(
    extract: Extract, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"kept = bytearray({KEPT_MAX})\nfor at in range(0, len(kept), 4096): kept[at] = 1\n"
    )
    environment = spawning.environment
    monkeypatch.setattr(
        spawning, "environment", lambda given: environment({**given, "PYTHONPATH": str(tmp_path)})
    )
    with closing(Extractor()) as extractor:
        extractor.start(extract.job(ARCHIVE))
        assert extractor.result().entries == 1
        assert not extractor.is_alive


def test_lack_of_memory_is_never_the_images_fault(extract: Extract) -> None:
    blob = COMPRESSIONS["zstd 22"](ARCHIVE)
    with closing(Extractor()) as extractor:
        _limit(extractor.pid, 100 << 20)  # the window alone has 128 MiB
        extractor.start(extract.job(blob, digest=digest_of(blob)))
        with pytest.raises(OutOfMemory, match="zstd"):
            extractor.result()


def _limit(pid: int, room: int) -> None:
    """Leave a worker that has started *room* bytes."""
    wait_until(lambda: bool(Path(f"/proc/{pid}/task/{pid}/children").read_text()))
    most = _held(pid) + room
    resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))


def test_a_job_that_cannot_start_is_answered(extract: Extract) -> None:
    """Neither a thread's stack nor anything else of some MiB can be had."""
    with closing(Extractor()) as extractor:
        _limit(extractor.pid, 1 << 20)
        extractor.start(extract.job(ARCHIVE))
        with pytest.raises(OutOfMemory, match="not at fault"):
            extractor.result()
        assert not extractor.is_alive
