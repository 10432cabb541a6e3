"""Mounts for tests that are always undone: overlays, tmpfs, and whatever a daemon left.

Nothing here imports layerfs: a bug in the program must not keep its own mess from being cleaned up.
"""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_OCTAL_LENGTH = 4
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18  # include/uapi/linux/sched.h, mount.h


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    mountpoint: bytes
    filesystem: str
    source: bytes
    options: frozenset[str]
    super_options: str


def isolate() -> None:
    """Give this process a mount namespace of its own, for root, before it starts another.

    Two who run tests at once are seen by each other else: a namespace that one makes would hold a copy of
    what the other has mounted, and that would be in use until it ends. Root without that right cannot mount.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not libc.unshare(_CLONE_NEWNS):
        libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)


def mounts() -> list[Mount]:
    """Return the mounts of this namespace, oldest first."""
    return [_parse(line) for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n")[:-1]]


def mount_at(path: Path) -> Mount | None:
    """Return the uppermost mount exactly at *path*, which need not answer."""
    wanted = os.fsencode(os.path.abspath(path))
    found = [mount for mount in mounts() if mount.mountpoint == wanted]
    return found[-1] if found else None


def unmount(path: Path) -> None:
    """Unmount *path*. Raises CalledProcessError if it is busy or not mounted."""
    subprocess.run(["umount", str(path)], check=True, capture_output=True)


def clear(directory: Path) -> list[bytes]:
    """Unmount everything at or below *directory*, by force; return what had to be unmounted."""
    top = os.fsencode(os.path.abspath(directory))
    cleared = []
    for mount in reversed(mounts()):
        if mount.mountpoint == top or mount.mountpoint.startswith(top + b"/"):
            cleared.append(mount.mountpoint)
            if subprocess.run(["umount", mount.mountpoint], capture_output=True).returncode:
                subprocess.run(["umount", "-l", mount.mountpoint], capture_output=True)
    return cleared


@contextlib.contextmanager
def mountpoint(path: Path) -> Iterator[Path]:
    """Make the directory *path* to mount on, yield it, and unmount what is there in any case."""
    path.mkdir()
    try:
        yield path
    finally:
        clear(path)


@contextlib.contextmanager
def mounted(filesystem: str, source: str, target: Path, *options: str) -> Iterator[Path]:
    """Mount as mount(8) does, yield *target*, and unmount it in any case.

    Raises CalledProcessError with mount's words in `stderr` if the mount is refused.
    """
    target.mkdir(parents=True, exist_ok=True)
    command = [
        "mount",
        "-t",
        filesystem,
        *(("-o", ",".join(options)) if options else ()),
        source,
        str(target),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    try:
        yield target
    finally:
        clear(target)


@contextlib.contextmanager
def overlay(lowerdir: str | Sequence[Path], base: Path, *options: str, upper: bool = True) -> Iterator[Path]:
    """Mount an overlay at ``base/merged``, with ``base/upper`` and ``base/work`` unless not *upper*.

    *lowerdir* is a ready option (``lowerdir=a:b``, as layerfs prints it) or a list of directories, top first.
    """
    text = lowerdir if isinstance(lowerdir, str) else "lowerdir=" + ":".join(map(escape, lowerdir))
    more = []
    if upper:
        for name in ("upper", "work"):
            (base / name).mkdir(parents=True, exist_ok=True)
            more.append(f"{name}dir={base / name}")
    with mounted("overlay", "overlay", base / "merged", text.strip(), *more, *options) as merged:
        yield merged


@contextlib.contextmanager
def fuse_overlay(lowerdir: str, target: Path, *options: str) -> Iterator[Path]:
    """Mount fuse-overlayfs at *target*; *lowerdir* is a ready option. Raises CalledProcessError.

    Its process has ended afterwards, though other mount namespaces may have a copy of the mount.
    """
    target.mkdir(parents=True, exist_ok=True)
    command = ["fuse-overlayfs", "-f", "-o", ",".join([lowerdir.strip(), *options]), str(target)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while mount_at(target) is None:
            if process.poll() is not None:
                raise subprocess.CalledProcessError(process.returncode, command)
            time.sleep(0.01)
        yield target
    finally:
        clear(target)
        process.terminate()
        process.wait()


@contextlib.contextmanager
def tmpfs(target: Path, *options: str) -> Iterator[Path]:
    """Mount an empty tmpfs."""
    with mounted("tmpfs", "tmpfs", target, *options):
        yield target


@contextlib.contextmanager
def ramfs(target: Path) -> Iterator[Path]:
    """Mount an empty filesystem that has no extended attributes."""
    with mounted("ramfs", "ramfs", target):
        yield target


@contextlib.contextmanager
def abandoned_fuse(point: Path, user: int) -> Iterator[None]:
    """Mount at *point* what looks like *user*'s layerfs; its daemon is gone, so no look into it waits."""
    point.mkdir(parents=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={device},rootmode=40000,user_id={user},group_id=0"
        command = ["mount", "-i", "-c", "-t", "fuse.layerfs", "-o", options, "layerfs", str(point)]
        subprocess.run(command, check=True, pass_fds=[device], capture_output=True)
    finally:
        os.close(device)
    try:
        yield
    finally:
        clear(point)


def escape(path: Path) -> str:
    """Write *path* as one lowerdir of mount(2)'s overlay option."""
    return "".join(f"\\{character}" if character in "\\:," else character for character in str(path))


def _parse(line: bytes) -> Mount:
    # proc_pid_mountinfo(5): optional fields end at a single hyphen.
    head, _, tail = line.partition(b" - ")
    fields, kind = head.split(b" "), tail.split(b" ")
    return Mount(
        mountpoint=_unescape(fields[4]),
        filesystem=kind[0].decode(),
        source=_unescape(kind[1]),
        options=frozenset(fields[5].decode().split(",")),
        super_options=_unescape(kind[2]).decode("utf-8", "surrogateescape"),
    )


def _unescape(text: bytes) -> bytes:
    for code in (b"\\040", b"\\011", b"\\012", b"\\134"):
        text = text.replace(code, bytes([int(code[1:_OCTAL_LENGTH], 8)]))
    return text
