"""What the wheel brings beside the package: manual pages and completions, as the program prints them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from layerfs.cli.manual import shared_data
from tests.cli.conftest import CommandLine

_REPOSITORY = Path(__file__).parents[2]


def test_shared_data_is_what_the_verbs_print(layerfs: CommandLine) -> None:
    printed = {
        "share/man/man1/layerfs.1": ["man", "layerfs"],
        "share/man/man5/layerfs.toml.5": ["man", "layerfs.toml"],
        "share/man/man8/mount.layerfs.8": ["man", "mount.layerfs"],
        "share/bash-completion/completions/layerfs": ["completion", "bash"],
        "share/zsh/site-functions/_layerfs": ["completion", "zsh"],
        "share/fish/vendor_completions.d/layerfs.fish": ["completion", "fish"],
    }
    assert shared_data() == {place: layerfs(*words).stdout for place, words in printed.items()}


@pytest.mark.long
def test_the_wheel_installs_them(tmp_path: Path) -> None:
    """The lowest version of hatchling would do; pip takes the newest, from the index."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, _REPOSITORY], check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "shared_data.py" in name]
        assert "layerfs/py.typed" in archive.namelist()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([tmp_path / "venv/bin/pip", "install", "-q", "--no-deps", wheel], check=True)
    for place, text in shared_data().items():
        assert (tmp_path / "venv" / place).read_text("utf-8") == text
