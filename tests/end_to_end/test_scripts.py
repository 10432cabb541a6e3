"""The scripts that newcomers run: the demonstration, and an installation from a checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import canary

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_CHECKOUT = Path(__file__).parents[2]
_TOP = [".ci", "README.md", "LICENSE", "layerfs", "pyproject.toml", "scripts", "tests"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout that uses its virtual environment."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in _TOP:
        source = _CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    (copy / ".venv").symlink_to(_CHECKOUT / ".venv")
    return copy


def test_the_demonstration_works_twice_and_leaves_the_checkout_alone(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    before = _without_bytecode(canary.snapshot(checkout))

    for _ in range(2):
        done = subprocess.run(
            [checkout / "scripts/demo"],
            env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "\033" not in done.stdout

    canary.assert_same(before, _without_bytecode(canary.snapshot(checkout)), ignore={"mtime_ns"})
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.long
def test_a_checkout_can_be_installed(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv").unlink()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([tmp_path / "venv/bin/pip", "install", "-q", "."], cwd=checkout, check=True)

    for command in ([tmp_path / "venv/bin/layerfs"], [tmp_path / "venv/bin/python", "-m", "layerfs"]):
        done = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "mount" in done.stdout


def _without_bytecode(tree: canary.Snapshot) -> canary.Snapshot:
    """Leave out what .gitignore names: extractors have a clean environment, and cache where Python does."""
    return {path: fact for path, fact in tree.items() if b"__pycache__" not in path.split(b"/")}
