"""The read-ahead is raised where that is permitted, and never lowered; anything else is silent."""

import os
from pathlib import Path

import pytest

from layerfs.host import kernel


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel, "_BDI", tmp_path)
    path = tmp_path / "0:77" / "read_ahead_kb"
    path.parent.mkdir()
    return path


@pytest.mark.parametrize(("before", "after"), [("128\n", "1024"), ("4096\n", "4096\n")])
def test_it_is_raised_and_never_lowered(setting: Path, before: str, after: str) -> None:
    setting.write_text(before)
    assert kernel.raise_read_ahead(os.makedev(0, 77))
    assert setting.read_text() == after


def test_what_is_not_there_is_silent(setting: Path) -> None:
    assert not kernel.raise_read_ahead(os.makedev(0, 78))
    setting.write_text("?")
    assert not kernel.raise_read_ahead(os.makedev(0, 77))
