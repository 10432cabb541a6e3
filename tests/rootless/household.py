"""An ordinary user of this machine, made for a session: a name, a home, subordinate ids, a /dev/fuse.

All of it is in a mount namespace, so that nothing of this machine changes and nothing is left when the tests
are killed: files of /etc with a few lines more, a node /dev/fuse that everybody may open, and the way to the
interpreter opened where it lies in a closed home. The namespace ends with the process that made it.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.rootless.inside import Inside
from tests.support import clients, leftovers
from tests.support.daemon import DaemonFailed

NAME: Final = "layerfs-tester"
UID: Final = 54321
STRANGER: Final = 54322
"""Another ordinary user."""

SUBORDINATE: Final = 700_000
"""First of the 65536 ids that the user may map into a namespace."""

NAMESPACE: Final = ("unshare", "--user", "--map-root-user", "--map-auto", "--mount")
"""What gives the user a namespace with mapped ids, as `podman unshare` does."""

_CHECKOUT: Final = Path(__file__).parents[2]
_LAYERFS: Final = (sys.executable, "-m", "layerfs")
_SECONDS: Final = 60.0
Argument = str | bytes | Path

_ADDITIONS: Final = {
    "passwd": f"{NAME}:x:{UID}:{UID}::%s:/bin/sh\nstranger:x:{STRANGER}:{STRANGER}::/:/bin/sh\n",
    "group": f"{NAME}:x:{UID}:\n",
    "subuid": f"{NAME}:{SUBORDINATE}:65536\n",
    "subgid": f"{NAME}:{SUBORDINATE}:65536\n",
}

_FURNISH: Final = """
set -eu
base=$1
shift
for name in passwd group subuid subgid; do
    [ -e "/etc/$name" ] || { echo "no /etc/$name (package uidmap)" >&2; exit 1; }
    mount --bind "$base/etc/$name" "/etc/$name"
done
mount -t tmpfs -o mode=0755 none "$base/dev"
mknod -m 0666 "$base/dev/fuse" c 10 229
mount --bind "$base/dev/fuse" /dev/fuse
# Pairs: a directory that ordinary users may not pass, and what they need below it.
number=0
closed=
while [ $# -gt 0 ]; do
    if [ "$1" != "$closed" ]; then
        closed=$1
        number=$((number + 1))
        mkdir "$base/open/$number"
        mount --bind "$closed" "$base/open/$number"
        mount -t tmpfs -o mode=0755 none "$closed"
    fi
    mkdir -p "$2"
    mount --bind "$base/open/$number${2#"$closed"}" "$2"
    shift 2
done
echo furnished
exec cat
"""


@dataclass(frozen=True)
class Mounted:
    """A daemon of the user, in the foreground, and what it serves."""

    room: "Room"
    process: subprocess.Popen[bytes]
    mountpoint: Path
    log_file: Path

    @property
    def images(self) -> Path:
        """The directory that references are named below."""
        return self.mountpoint / "images"

    def log(self) -> str:
        """Return what it has written to stderr so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def run(self, *argv: Argument, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program where the mount is and return what it printed."""
        return self.room.run(*argv, check=check)

    def inside(self) -> contextlib.AbstractContextManager[Inside]:
        """Start a process that calls functions where the mount is."""
        return self.room.inside()

    def kill(self) -> None:
        """End it as a crash would; the dead mount stays."""
        self.process.kill()
        self.process.wait()


class Room:
    """Where commands run: as whom, in which namespaces. *prefix* is what to put before a command."""

    def __init__(self, household: "Household", prefix: Sequence[str], unmount: Sequence[str]) -> None:
        self.household = household
        self.prefix = tuple(prefix)
        self._unmount = tuple(unmount)

    def run(self, *argv: Argument, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return what it printed."""
        done = subprocess.run(
            [*self.prefix, *map(os.fsdecode, argv)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=60,
        )
        said = f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not check or done.returncode == 0, said
        return done

    def layerfs(
        self, *arguments: Argument, before: Sequence[str] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line; *before* it stands what runs it."""
        return self.run(*before, *_LAYERFS, *arguments, check=check)

    @contextlib.contextmanager
    def inside(self) -> Iterator[Inside]:
        """Yield a process that calls functions for the test."""
        with Inside(self.prefix) as made:
            yield made

    @contextlib.contextmanager
    def mounted(
        self, *arguments: str, mountpoint: Path | None = None, before: Sequence[str] = ()
    ) -> Iterator[Mounted]:
        """Run ``layerfs mount -f`` for a block; the mount is gone afterwards.

        Raises DaemonFailed, with the log, if the mount does not answer.
        """
        fresh = self.household.place("mnt")
        point = mountpoint or fresh
        log_file, address = (self.household.base / f"{fresh.name}.{kind}" for kind in ("log", "ready"))
        command = [*before, *_LAYERFS, "mount", "-f", *arguments, str(point)]
        argv = [*self.prefix, "env", f"NOTIFY_SOCKET={address}", *command]
        with _announcements(address) as channel, log_file.open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            daemon = Mounted(self, process, point, log_file)
            try:
                _await_ready(channel, daemon)
                yield daemon
            finally:
                _end(process)
                self.run(*self._unmount, point, check=False)


class Household:
    """The user and all that is his, from `open` to `close`."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="layerfs-household-", dir="/var/tmp"))
        self.home = self.base / "home"
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None

    def room(self, uid: int = UID) -> Room:
        """Return where the user is, or another one."""
        assert self._process is not None
        return Room(
            self,
            [
                *("nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", "--"),
                *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--"),
                *self._surroundings(self.home if uid == UID else self.base),
            ],
            ["fusermount3", "-uz"],
        )

    @contextlib.contextmanager
    def namespace(self) -> Iterator[Room]:
        """Yield a new user namespace of the user, with mapped ids and mounts of its own; he is root there."""
        holder = subprocess.Popen(
            [*self.room().prefix, *NAMESPACE, "sh", "-c", "echo here; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"here\n", "no user namespace with mapped ids"
            entering = ["nsenter", f"--target={holder.pid}", "--user", "--mount", "--"]
            yield Room(self, [*entering, *self._surroundings(self.home)], ["umount", "-l"])
        finally:
            holder.communicate()

    def as_root(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program of root's that sees the user's mounts."""
        assert self._process is not None
        entering = ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", "--"]
        done = subprocess.run([*entering, *argv], capture_output=True, text=True)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def unmount(self, point: Path) -> None:
        """Unmount what root mounted where the user is, as soon as nobody uses it.

        Whoever looks at the mounts of all processes, as daemons of other tests do, uses each for that time.
        """
        unmounting = "sh", "-c", 'umount "$1" || echo in use', "sh", str(point)
        clients.wait_until(lambda: not self.as_root(*unmounting).stdout)

    def seen(self, path: Path) -> Path:
        """Return a path by which this process sees what the user sees at *path*, mounts included."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root{path}")

    def place(self, name: str, uid: int = UID) -> Path:
        """Make a new directory, of the user or another one, and return it."""
        self._number += 1
        parent = self.home if uid == UID else self.base
        made = parent / f"{name}.{self._number}"
        made.mkdir()
        os.chown(made, uid, uid)
        return made

    def _surroundings(self, home: Path) -> list[str]:
        """Return the part of a prefix that says where a command runs, and in which environment."""
        variables = {
            "HOME": home,
            "USER": NAME,
            "LOGNAME": NAME,
            "XDG_RUNTIME_DIR": home / "run",
            "PYTHONPATH": _CHECKOUT,
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            leftovers.SESSION_VARIABLE: os.environ.get(leftovers.SESSION_VARIABLE, ""),
        }
        assignments = [f"{key}={value}" for key, value in variables.items()]
        return ["env", "-C", str(home), "-i", *assignments]

    # Making it

    def open(self) -> None:
        """Make the user. Raises RuntimeError, saying what is missing, where this cannot be."""
        self.base.chmod(0o755)
        for name in ("etc", "dev", "open", "home"):
            (self.base / name).mkdir()
        for name, line in _ADDITIONS.items():
            known = Path("/etc", name)
            text = known.read_text() if known.exists() else ""
            (self.base / "etc" / name).write_text(text + line.replace("%s", str(self.home)))
        for path in (self.home, self.home / "run"):
            path.mkdir(exist_ok=True)
            path.chmod(0o700)
            os.chown(path, UID, UID)
        pairs = [str(path) for pair in closed_ways(_needed()) for path in pair]
        self._process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--propagation=private",
                "sh",
                "-c",
                _FURNISH,
                "sh",
                str(self.base),
                *pairs,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"furnished\n":
            _, said = self._process.communicate()
            shutil.rmtree(self.base)
            raise RuntimeError(f"the rights to make an ordinary user: {said.decode().strip()}")

    def close(self) -> None:
        """Take the user away."""
        assert self._process is not None
        self._process.communicate()  # its input closes, it ends, and with it the namespace
        deadline = time.monotonic() + _SECONDS
        while (found := self._processes()) and time.monotonic() < deadline:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self.base)

    def _processes(self) -> list[int]:
        """Return what still runs in this home: podman leaves processes behind."""
        home = f"HOME={self.home}".encode()
        found = []
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if home in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
        return found


def closed_ways(needed: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return what of *needed* an ordinary user cannot reach, each with the directory that is in the way."""
    found = []
    for path in needed:
        above = [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]
        if above:
            found.append((above[0], path))
    return sorted(set(found))


def _needed() -> list[Path]:
    """Return the checkout, the virtual environment and the interpreter, links resolved, outermost only."""
    paths = {Path(os.path.realpath(path)) for path in (_CHECKOUT, sys.prefix, sys.base_prefix)}
    return [path for path in paths if not any(parent in paths for parent in path.parents)]


@contextlib.contextmanager
def _announcements(address: Path) -> Iterator[socket.socket]:
    """Yield a socket on which a daemon says that it is ready, see sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        address.chmod(0o666)
        channel.settimeout(0.1)
        yield channel


def _await_ready(channel: socket.socket, daemon: Mounted) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            if channel.recv(4096) == b"READY=1":
                return
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise DaemonFailed(f"the mount does not answer; the daemon's log:\n{daemon.log()[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
