"""scripts/fresh on a Debian of one program, with tests of one line: how it ends, and what it leaves."""

import os
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_SCRIPTS = Path(__file__).parents[1] / "scripts"
_SECONDS = 60.0
_FOLDERS = ["bin", "dev", "etc", "proc", "sys", "run", "tmp", "root", "var/lib/dpkg", "var/cache/apt"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with scripts/fresh as it is, and a demonstration that passes."""
    path = tmp_path / "checkout"
    shutil.copytree(_SCRIPTS / "lib", path / "scripts/lib")
    shutil.copy(_SCRIPTS / "fresh", path / "scripts/fresh")
    subprocess.run(["git", "init", "--quiet", str(path)], check=True)
    _script(path / "scripts/demo", "exit 0")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has a minimal root already: busybox."""
    root, cache = tmp_path / "root", tmp_path / "cache"
    cache.mkdir()
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in ("sh", "umount", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    _script(root / "bin/python3", "echo Python 3")
    (root / "var/lib/dpkg/status").touch()
    with tarfile.open(cache / "bookworm.tar", "w") as archive:
        archive.add(root, ".")
    return cache


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def _fresh(checkout: Path, cache: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with _said(cache).open("wb") as file:
        return subprocess.Popen(
            [str(checkout / "scripts/fresh"), *arguments],
            env=os.environ | {"LAYERFS_FRESH_CACHE": str(cache)},
            stdin=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )


def _said(cache: Path) -> Path:
    """Return the file that has what the script says."""
    return cache.with_suffix(".stderr")


@pytest.mark.parametrize("code", [0, 7])
def test_fresh_ends_with_the_code_of_the_tests(checkout: Path, cache: Path, code: int) -> None:
    _script(checkout / "scripts/test", f"exit {code}")

    process = _fresh(checkout, cache)

    assert process.wait(_SECONDS) == code, _said(cache).read_text()
    assert sorted(os.listdir(cache)) == ["bookworm.debs", "bookworm.pip", "bookworm.tar"]


def test_fresh_base_says_where_the_root_is_and_runs_nothing(checkout: Path, cache: Path) -> None:
    _script(checkout / "scripts/test", "exit 7")

    done = subprocess.run(
        [checkout / "scripts/fresh", "--base", "bookworm"],
        env=os.environ | {"LAYERFS_FRESH_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"{cache}/bookworm.tar\n"
    assert os.listdir(cache) == ["bookworm.tar"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_fresh_ends_all_that_it_started(checkout: Path, cache: Path, number: signal.Signals) -> None:
    (cache / "bookworm.pip").mkdir()
    os.mkfifo(cache / "bookworm.pip/alive")
    # A child that has left the group and ignores the signal holds the pipe open, too.
    _script(
        checkout / "scripts/test",
        "exec >/root/.cache/pip/alive; trap '' TERM INT HUP; busybox setsid sleep 1000 & echo here; wait",
    )

    process = _fresh(checkout, cache)
    with (cache / "bookworm.pip/alive").open() as alive:
        assert alive.readline() == "here\n"
        process.send_signal(number)
        assert process.wait(_SECONDS) == 128 + number
        assert alive.read() == ""  # its end: nobody is left who could write
    assert sorted(os.listdir(cache)) == ["bookworm.debs", "bookworm.pip", "bookworm.tar"]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_SECONDS)
        yield server


def test_an_interrupted_debootstrap_leaves_nothing(
    checkout: Path, tmp_path: Path, silent: socket.socket
) -> None:
    cache = tmp_path / "cache"

    process = _fresh(checkout, cache, "--mirror", f"http://127.0.0.1:{silent.getsockname()[1]}/debian")
    with silent.accept()[0] as connection:
        connection.settimeout(_SECONDS)
        assert b"/debian/" in connection.recv(1000)
        process.terminate()
        assert process.wait(_SECONDS) == 128 + signal.SIGTERM
        assert connection.recv(1000) == b""
    assert os.listdir(cache) == ["bookworm.log"]


def test_a_failed_debootstrap_says_why_and_keeps_the_log(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    process = _fresh(checkout, cache, "--mirror=http://127.0.0.1:1/debian")

    assert process.wait(_SECONDS) == 1
    assert f"all of it: {cache}/bookworm.log" in _said(cache).read_text()
    assert os.listdir(cache) == ["bookworm.log"]
