"""What the tests of overlays share: an image by name, its lowerdirs in all their spellings, a container."""

import contextlib
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from layerfs.cli.app import app
from layerfs.cli.failures import report
from layerfs.errors import LayerfsError
from layerfs.oci import Tag
from layerfs.store import ImageStorage
from tests.support import canary, clients, images
from tests.support.daemon import Daemon
from tests.support.images import BuiltImage, BuiltLayer, Entry
from tests.support.registry import Registry

BUSYBOX: tuple[Entry, ...] = (
    images.directory("."),
    images.directory("bin"),
    images.file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
    *(images.symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "ls", "id", "env", "pwd", "echo")),
    *(images.directory(name) for name in ("dev", "etc", "proc", "root", "run", "sys", "usr", "var")),
    images.directory("tmp", mode=0o1777),
    images.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
    images.file("etc/group", b"root:x:0:\nuser:x:1000:\n"),
    images.file("etc/os-release", b"ID=test\n"),
)
"""A root that a shell can be started in, and that systemd-nspawn takes for one."""

ROOT = images.directory(".")
"""Overlayfs shows the root directory of its topmost layer."""


_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Place:
    """One image in a mount."""

    reference: Tag
    path: Path
    """Its directory below ``images/``."""
    built: BuiltImage

    def lowerdir(self) -> str:
        """Return the mount option, as the mount has it."""
        return clients.read(self.path / "lowerdir").decode().rstrip("\n")

    def lowerdirs(self) -> list[str]:
        """Return its parts."""
        return clients.read(self.path / "lowerdirs").decode().splitlines()

    def fuse_lowers(self) -> list[Path]:
        """Return the FUSE form of cover and layers, topmost first."""
        count = len(self.built.layers)
        seen = dict.fromkeys((self.path / f"layers/{n:02}/lower").resolve() for n in reversed(range(count)))
        return [Path(self.lowerdirs()[0]), *seen]


@dataclass(frozen=True)
class Scene:
    """A registry, and a mount that fetches from it."""

    registry: Registry
    daemon: Daemon

    def place(self, name: str, *layers: BuiltLayer, **more: object) -> Place:
        """Push an image of *layers*, base first, under a name that no other has."""
        built = images.image(*layers, **more)  # type: ignore[arg-type]  # passed on as they are
        reference = self.registry.push(f"overlay/{name}-{next(_NUMBERS)}", "latest", built)
        return Place(reference, self.daemon.images / str(reference), built)

    @property
    def store(self) -> Path:
        """Directory of the daemon's store."""
        return self.daemon.store

    @cached_property
    def storage(self) -> ImageStorage:
        """The daemon's store, opened by this process too."""
        return ImageStorage(self.store)

    def overlay(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``layerfs overlay`` on the daemon's store."""
        return command("overlay", "--store", self.store, *arguments, check=check)

    def lowerdir(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``layerfs lowerdir`` on the daemon's store."""
        return command("lowerdir", "--store", self.store, *arguments, check=check)


def mounted_quietly(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a daemon that completes nothing behind those who look."""
    path = tmp_path / "layerfs.toml"
    path.write_text('background = "never"\n')
    return {"LAYERFS_CONFIG": str(path)}


_GIVES_WAY = frozenset({"verify"})
"""Verbs that take rights and turns from their process for good, so that later tests would lack them."""


def command(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command line in this process, which costs a fifth of the time of one of its own.

    Raises CalledProcessError, with a note of what it said, if it fails and *check* is set.
    """
    words = [str(word) for word in arguments]
    if words[0] in _GIVES_WAY:
        argv = [sys.executable, "-m", "layerfs", *words]
        done = subprocess.run(argv, capture_output=True, text=True)
    else:
        code, out, err = 0, io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                app(words, standalone_mode=False)
            except LayerfsError as error:
                code = report(error)
        done = subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
    if check and done.returncode:
        failure = subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
        failure.add_note(done.stderr)
        raise failure
    return done


def numbered(count: int) -> list[BuiltLayer]:
    """Make layers that show their order: each has a file of its number, all have one named top."""
    return [
        images.layer(
            images.directory(".", mtime=number),
            images.file(f"file-{number}", b"%d" % number),
            images.file("top", b"%d" % number),
            *((images.whiteout("file-0"),) if number == count - 1 and count > 1 else ()),
        )
        for number in range(count)
    ]


def snapshot(merged: Path) -> canary.Snapshot:
    """Describe an overlay: its files may have a device number for each filesystem of its lowers."""
    return canary.snapshot(merged, one_filesystem=False)


def in_container(
    root: Path, *command: str, user: int = 0, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of the image in *root*."""
    argv = ["chroot", f"--userspec={user}:{user}", str(root), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=60)


def as_namespace_root(
    script: str, environment: Mapping[str, str], timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root of user, mount and pid namespaces of its own, with most ids."""
    argv = ["unshare", "--user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
    # The identity, but not of all ids: so it is not the initial namespace. unshare(1) cannot do it.
    gate = ["sh", "-c", 'read go && exec "$@"', "gate"]
    done = subprocess.Popen(
        ["unshare", "--user", *gate, "unshare", *argv[2:], script],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    clients.wait_until(lambda: os.readlink(f"/proc/{done.pid}/ns/user") != os.readlink("/proc/self/ns/user"))
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{done.pid}/{name}").write_text("0 0 65536\n")
    out, err = done.communicate("go\n", timeout)
    return subprocess.CompletedProcess(argv, done.returncode, out, err)


def native(lowers: Sequence[str], store: Path) -> bool:
    """Say whether all *lowers* lead to directories of *store*."""
    return all(os.path.realpath(path).startswith(f"{store}/") for path in lowers)
