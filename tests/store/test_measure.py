"""What things take of the disk."""

import os
import subprocess
from pathlib import Path

from layerfs.store.measure import disk_usage


def test_disk_usage_is_what_du_counts(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/large").write_bytes(b"x" * 100_000)
    (tmp_path / "hard").hardlink_to(tmp_path / "a/b/large")
    (tmp_path / "a/link").symlink_to(tmp_path)
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"x")
    counted = subprocess.run(["du", "-sB1", tmp_path], capture_output=True, text=True, check=True).stdout
    assert disk_usage(tmp_path) == int(counted.split()[0])
    assert disk_usage(tmp_path / "absent") == 0
