"""Where a command is started counts for nothing: neither what lies there nor what PATH finds there is run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks.ground import Ground
from tests.support import clients, daemon, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

SCRIPT = Path(sys.executable).with_name("layerfs")
_PROGRAMS = (
    "fusermount3",
    "mount",
    "umount",
    "tar",
    "zstd",
    "xz",
    "python3",
    "python",
    "sh",
    "docker-credential-x",
)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory full of modules and programs that tell if anybody runs one."""
    place, told = tmp_path / "trap", tmp_path / "told"
    place.mkdir()
    module = f"open({str(told)!r}, 'a').write(__file__ + chr(10))\n"
    names = {name.partition(".")[0] for name in sys.stdlib_module_names | sys.modules.keys()}
    for name in names | {
        "layerfs",
        "httpx",
        "httpcore",
        "pyfuse3",
        "trio",
        "xattr",
        "isal",
        "zstandard",
        "msgspec",
    }:
        (place / f"{name}.py").write_text(module)
        (place / name).mkdir()
        (place / name / "__init__.py").write_text(module)
    for name in ("sitecustomize", "usercustomize"):
        (place / f"{name}.py").write_text(module)
    for name in _PROGRAMS:
        (place / name).write_text(f'#!/bin/bash\necho "$0" >> {told}\n')
        (place / name).chmod(0o755)
    for name, content in {
        "config.toml": "nonsense",
        "config.json": "{",
        ".env": "LAYERFS_STORE=/x",
        "pyvenv.cfg": "x",
    }.items():
        (place / name).write_text(content)
    return place


def _told(trap: Path) -> str:
    told = trap.with_name("told")
    return told.read_text() if told.exists() else ""


def _environment(store: Path, **more: str) -> dict[str, str]:
    return daemon.clean_environment() | {"LAYERFS_STORE": str(store)} | more


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(":{path}", id="empty"),
        pytest.param("{path}", id="named", marks=pytest.mark.long),
        pytest.param("{path}:", id="last", marks=pytest.mark.long),
        pytest.param(".:{path}", id="dot", marks=pytest.mark.long),
    ],
)
def test_the_working_directory_is_not_where_code_comes_from(
    attacked: Ground, trap: Path, memory: Path, mountpoint: Path, path: str, tried: Callable[[int], None]
) -> None:
    """The installed script, with a PATH that has an empty entry, or the directory itself."""
    store = memory / "store"
    environment = _environment(store, PATH=path.format(path=os.environ["PATH"]))
    name, point = attacked.names[0], str(mountpoint)
    commands = (
        f"pull {name}",
        "images",
        f"mount {point}",
        f"umount {point}",
        f"overlay {name} {point}",
        f"overlay --umount {point}",
    )
    for command in commands:
        done = subprocess.run(
            [SCRIPT, *command.split()], cwd=trap, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (command, done.stderr)
        if command.startswith("mount"):
            assert "tool" in clients.names(mountpoint / "images" / name / "layers/00/diff/base")
        assert _told(trap) == ""
        tried(1)

    assert mounts.mount_at(mountpoint) is None
    attacked.nothing_runs()
    assert attacked.compare(store) == len(attacked.images[0].layers)


def test_the_trap_works(trap: Path) -> None:
    """As Python does, ``python -m`` takes modules from where it is started."""
    subprocess.run([sys.executable, "-m", "layerfs"], cwd=trap, env=_environment(trap), capture_output=True)
    told = _told(trap)
    subprocess.run(
        ["/bin/bash", "-c", "umount x"], cwd=trap, env={"PATH": f":{trap}/none"}, capture_output=True
    )

    assert str(trap) in told
    assert "umount" in _told(trap).removeprefix(told)
