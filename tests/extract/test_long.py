"""What takes minutes: two million entries in little memory."""

import gzip
import subprocess
from pathlib import Path

import pytest

from layerfs.extract.client import Extractor
from layerfs.extract.job import ExtractJob
from tests.extract.extracting import digest_of, peak_memory
from tests.layer.headers import END, header

_ENTRIES = 2_000_000
_MEMORY = 64 << 20


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


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("directories", [False, True], ids=["files", "directories"])
def test_two_million_entries_need_no_more_memory_than_a_few(memory: Path, directories: bool) -> None:
    blob = memory / "many.tar.gz"
    _write_many(blob, directories=directories)
    target = memory / "many"
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
        assert peak_memory(extractor) < _MEMORY
    finally:
        extractor.close()
        subprocess.run(["rm", "-rf", target], check=True)
