"""The scripts that newcomers run: the demonstration, and an installation from a checkout."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.test_words import verbs
from tests.support import canary, daemon, images
from tests.support.registry import Registry

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


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_lowest_versions_that_are_declared_work(
    checkout: Path, tmp_path: Path, registry: Registry, mountpoint: Path
) -> None:
    """And their help looks as it does here, with the versions of the lock file."""
    (checkout / ".venv").unlink()
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = [re.sub(r">=([\d.]+),<.*", r"==\1", line) for line in project["dependencies"]]
    assert [line for line in lowest if not re.fullmatch(r"[a-z0-9]+==[\d.]+", line)] == []
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([tmp_path / "venv/bin/pip", "install", "-q", ".", *lowest], cwd=checkout, check=True)
    (tmp_path / "home").mkdir()
    environment = daemon.clean_environment() | {
        "HOME": str(tmp_path / "home"),
        "LAYERFS_STORE": str(tmp_path / "store"),
    }
    image = images.image(images.layer(images.file("etc/motd", b"hello\n")))
    name = str(registry.push("lowest/versions", "1", image))

    def output_of(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    layerfs, here = tmp_path / "venv/bin/layerfs", Path(sys.executable).parent / "layerfs"
    for verb in ("", *(verb for verb, _ in verbs())):
        arguments = [*verb.split(), "--help"]
        assert output_of(layerfs, *arguments) == output_of(here, *arguments)
    assert image.digest.hex in output_of(layerfs, "pull", "-q", name)
    assert name in output_of(layerfs, "images")
    output_of(layerfs, "mount", mountpoint)
    try:
        assert (mountpoint / "images" / name / "rootfs/etc/motd").read_bytes() == b"hello\n"
        assert str(mountpoint) in output_of(layerfs, "status")
    finally:
        output_of(layerfs, "umount", mountpoint)


def _without_bytecode(tree: canary.Snapshot) -> canary.Snapshot:
    """Leave out what .gitignore names: extractors have a clean environment, and cache where Python does."""
    return {path: fact for path, fact in tree.items() if b"__pycache__" not in path.split(b"/")}
