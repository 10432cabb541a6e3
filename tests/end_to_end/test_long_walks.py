"""What walks over very large layers leave in memory."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import clients, daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse, pytest.mark.long]

log = logging.getLogger(__name__)

DIRECTORIES, FILES = 400, 500
ENTRIES = DIRECTORIES * (FILES + 1)


@pytest.mark.timeout(600)
def test_after_a_walk_of_two_hundred_thousand_entries_nothing_is_held(
    registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    entries = [images.directory(f"d{n}") for n in range(DIRECTORIES)]
    entries += [images.file(f"d{n}/f{m}") for n in range(DIRECTORIES) for m in range(FILES)]
    reference = registry.push("e2e/large", "latest", images.image(images.layer(*entries)))
    with daemon.running(store, mountpoint) as running:
        clients.run("ls", running.images / str(reference) / "layers/00/diff/", timeout=300)
    counts = tmp_path / "counts"
    command = [
        sys.executable, "-m", "tests.support.counting_daemon", str(store), str(mountpoint), str(counts)
    ]  # fmt: skip
    with daemon.running(store, mountpoint, command=command) as running:
        layer = (running.images / str(reference) / "layers/00/diff").resolve()

        first = _walk(layer, running.pid)
        peak = _known(counts)
        _drop_caches()
        clients.wait_until(lambda: _known(counts) < ENTRIES // 100, timeout=60)
        living = int(counts.read_text().split()[1])
        second = _walk(layer, running.pid)

    found = f"resident after the walks: {first} and {second} kB; known: {peak}; living afterwards: {living}"
    log.info("%s", found)
    assert peak > ENTRIES, found
    assert living < ENTRIES // 100, found
    assert second < first * 1.05, found


def _walk(layer: Path, pid: int) -> int:
    """Return the resident memory after it, in kB."""
    done = subprocess.run(
        ["find", layer, "-type", "f", "-size", "+1"], capture_output=True, timeout=120, check=True
    )
    assert done.stdout == b""
    time.sleep(0.5)  # until the counts are written
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"{pid} is gone")


def _known(counts: Path) -> int:
    return int((counts.read_text().split() or ["0"])[0])


def _drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2")
