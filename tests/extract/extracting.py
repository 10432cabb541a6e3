"""Runs extractions the way the daemon does: through the client, in a real worker."""

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.extract.job import ExtractJob
from layerfs.layer.record import Extraction
from layerfs.layer.tables import END, Tables, rows
from tests.support.images import Entry, tar

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tree:
    """What one extraction left behind."""

    path: Path
    extraction: Extraction
    warnings: tuple[str, ...]
    tables: Tables

    def listed(self, table: str) -> tuple[str, ...]:
        """Return the rows of a table."""
        return tuple(map(os.fsdecode, rows(getattr(self.tables, table))))

    def lstat(self, name: str | bytes) -> os.stat_result:
        """Return the attributes of one entry."""
        return os.lstat(os.path.join(os.fsencode(self.path), os.fsencode(name)))

    def names(self) -> set[str]:
        """Return all paths but the root."""
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*")}

    def xattrs(self, name: str) -> dict[str, bytes]:
        """Return the extended attributes of one entry."""
        path = self.path / name
        return {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }


class Extract:
    """Makes trees below one directory; a pool is shared by all tests."""

    def __init__(self, pool: ExtractorPool, directory: Path) -> None:
        self.pool = pool
        self.directory = directory
        self._numbers = itertools.count()

    def job(self, blob: bytes, **changes: Any) -> ExtractJob:
        """Write *blob* and return the job of extracting it into a new directory."""
        number = next(self._numbers)
        path = self.directory / f"blob-{number}"
        path.write_bytes(blob)
        target = self.directory / f"tree-{number}"
        target.mkdir(0o700)
        return msgspec.structs.replace(
            ExtractJob(blob=str(path), target=str(target), digest=digest_of(blob), size=len(blob)), **changes
        )

    def run(self, job: ExtractJob) -> Tree:
        """Run one job. Raises what the extractor raises."""
        listed: list[bytes] = []
        with self.pool.extractor() as extractor:
            extractor.start(job)
            extraction = extractor.result(listed.append)
            return Tree(Path(job.target), extraction, extractor.warnings, tables_in(extraction, listed))

    def __call__(self, *entries: Entry, archive: bytes | None = None, **changes: Any) -> Tree:
        """Extract *entries*, or the bytes of *archive*, compressed or not."""
        return self.run(self.job(tar(entries) if archive is None else archive, **changes))


def tables_in(extraction: Extraction, listed: Iterable[bytes]) -> Tables:
    """Return the tables that a worker has *listed*."""
    data, found = b"".join(listed), []
    for size in extraction.tables:
        found.append(data[:size])
        data = data[size:]
    assert not data
    tables = Tables(*found)
    counts = (extraction.whiteouts, extraction.opaques, extraction.implied, extraction.lost)
    assert counts == tuple(table.count(END) for table in found)
    return tables


def peak_memory(extractor: Extractor) -> int:
    """Return the most that a worker and its writer ever had, in bytes; what they share counts once."""
    children = Path(f"/proc/{extractor.pid}/task/{extractor.pid}/children").read_text().split()
    statuses = [
        dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        for pid in (extractor.pid, *children)
    ]
    peaks = [int(row["VmHWM"].split()[0]) for row in statuses]
    return (sum(peaks) - min(int(row["RssShmem"].split()[0]) for row in statuses)) * 1024


def digest_of(blob: bytes, algorithm: str = "sha256") -> str:
    """Return the digest that describes *blob*."""
    return f"{algorithm}:{hashlib.new(algorithm, blob).hexdigest()}"


def run_alone(job: ExtractJob, *wrapper: str, **options: Any) -> tuple[Tables, tuple[str, ...]]:
    """Run one job in a process of its own, below *wrapper* or with *options* of subprocess.

    Returns what it lists, and its warnings.
    """
    command = [*wrapper, sys.executable, "-m", "tests.extract.extracting"]
    done = subprocess.run(
        command, input=msgspec.json.encode(job), capture_output=True, cwd=ROOT, timeout=60, **options
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=tuple[Tables, tuple[str, ...]])


def _main() -> None:
    extractor = Extractor()
    extractor.start(msgspec.json.decode(sys.stdin.buffer.read(), type=ExtractJob))
    listed: list[bytes] = []
    tables = tables_in(extractor.result(listed.append), listed)
    sys.stdout.write(msgspec.json.encode((tables, extractor.warnings)).decode())
    extractor.close()


if __name__ == "__main__":
    _main()
