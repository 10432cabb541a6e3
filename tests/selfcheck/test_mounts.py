"""Mounts of tests are undone however the block ends."""

import os
from pathlib import Path

import pytest

from tests.support import mounts

pytestmark = pytest.mark.needs_root


def test_an_overlay_shows_its_layers_and_is_gone_afterwards(tmp_path: Path) -> None:
    for name in ("base", "top:with,odd\\name"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name[:3]).touch()

    with mounts.overlay([tmp_path / "top:with,odd\\name", tmp_path / "base"], tmp_path / "o") as merged:
        assert sorted(os.listdir(merged)) == ["bas", "top"]
        assert mounts.mount_at(merged) is not None

    assert mounts.mount_at(merged) is None


def test_a_busy_mount_is_cleared(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "busy dir") as target:
        (target / "open").touch()
        with (target / "open").open():
            assert mounts.clear(target) == [os.fsencode(target)]
            assert mounts.mount_at(target) is None


def test_nobody_else_gets_a_copy_of_the_mounts_of_a_session() -> None:
    assert os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")
