"""syncfs reports what the kernel says; the boot id is the kernel's."""

import os
from pathlib import Path

import pytest

from layerfs.host import boot_id, syncfs


def test_a_directory_can_be_synced(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def test_a_closed_descriptor_is_an_os_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError, match="syncfs"):
        syncfs(fd)


def test_the_boot_id_is_the_kernels() -> None:
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(boot_id()) == 36
