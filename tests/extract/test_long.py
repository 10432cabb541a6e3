"""What takes minutes: two million entries in little memory, and ten minutes of damaged archives."""

import gzip
import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from layerfs.errors import InvalidLayer
from layerfs.extract.client import Extractor
from layerfs.extract.job import ExtractJob
from tests.extract.extracting import Extract, digest_of
from tests.layer import headers
from tests.layer.headers import END, header

_ENTRIES = 2_000_000
_MEMORY = 64 << 20
_FUZZING = 600.0


def _write_many(path: Path, *, directories: bool) -> None:
    with gzip.open(path, "wb", compresslevel=1) as out:
        for first in range(0, _ENTRIES, 20):
            name = b"d%03d/e%03d/g%d" % (first // 10000, first // 200 % 50, first)
            rows = [header(name + b"/", b"5", mtime=first)]
            for n in range(1, 20):
                kind = b"5" if directories else b"0"
                rows.append(header(b"%b/%d" % (name, n), kind, mtime=first + n))
            out.write(b"".join(rows))
        out.write(END)


def _peak(pid: int) -> int:
    """Return the largest resident size of a process so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} does not say")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("directories", [False, True], ids=["files", "directories"])
def test_two_million_entries_need_no_more_memory_than_a_few(
    extract: Extract, tmp_path: Path, directories: bool
) -> None:
    blob = tmp_path / "many.tar.gz"
    _write_many(blob, directories=directories)
    target = tmp_path / "many"
    target.mkdir()
    extractor = Extractor()
    try:
        extractor.start(
            ExtractJob(
                blob=str(blob),
                target=str(target),
                digest=digest_of(blob.read_bytes()),
                size=blob.stat().st_size,
            )
        )
        assert extractor.result().entries == _ENTRIES
        children = Path(f"/proc/{extractor.pid}/task/{extractor.pid}/children").read_text().split()
        assert sum(map(_peak, [extractor.pid, *map(int, children)])) < _MEMORY
    finally:
        extractor.close()
        subprocess.run(["rm", "-rf", target], check=True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_minutes_of_damage_show_no_failure_that_is_not_a_refusal() -> None:
    corpus = [
        subprocess.run(
            ["tar", "-C", "/usr/share/doc/tar", *options, "-cf", "-", "."], check=True, capture_output=True
        ).stdout[:40960]
        for options in (["--format=gnu"], ["--format=posix", "--sparse"], ["--format=ustar"])
    ]
    chance = random.Random(time.time_ns())
    deadline = time.monotonic() + _FUZZING
    while time.monotonic() < deadline:
        archive = bytearray(chance.choice(corpus))
        start = chance.randrange(len(archive) // 512) * 512
        for _ in range(chance.randrange(1, 6)):
            at = start + chance.randrange(512)
            archive[at : at + 1] = chance.choice((b"\0", b"\xff", b"7", b"x", chance.randbytes(1)))
        if chance.random() < 0.8:
            archive[start + 148 : start + 156] = b" " * 8
            archive[start + 148 : start + 156] = b"%06o\0 " % sum(archive[start : start + 512])
        with suppress(InvalidLayer):
            headers.read(bytes(archive))
