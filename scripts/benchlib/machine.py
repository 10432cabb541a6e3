"""This machine: its versions, fresh filesystems to write to, and what a process cost."""

import contextlib
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchlib.results import NotAble
from tests.support import mounts

_DISK_BYTES = 12 << 30
_TICKS = os.sysconf("SC_CLK_TCK")
_STAT_TIMES = slice(11, 15)  # utime, stime, cutime, cstime, after the command (proc_pid_stat(5))

# What prints the version of each contender that can stand in a table.
_VERSIONS: dict[str, list[str]] = {
    "GNU tar": ["tar", "--version"],
    "gzip": ["gzip", "--version"],
    "bsdtar": ["bsdtar", "--version"],
    "umoci": ["umoci", "--version"],
    "podman": ["podman", "--version"],
    "skopeo": ["skopeo", "--version"],
    "fuse-overlayfs": ["fuse-overlayfs", "--version"],
    "ratarmount": ["ratarmount", "--version"],
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a finished program took."""

    seconds: float
    cpu: float
    peak_mb: float

    def figures(self) -> dict[str, float]:
        """Return what stands beside the time in a table."""
        # Linux counts the memory of the process that forked, too: below our own peak it is not known.
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"CPU s": self.cpu} | ({"peak MB": self.peak_mb} if self.peak_mb > own else {})


def cache_directory() -> Path:
    """Return where inputs are kept between runs; created if missing."""
    base = os.environ.get("LAYERFS_BENCH_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(base) if base else home / "layerfs-bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def about(command: str, rounds: int) -> dict[str, Any]:
    """Describe run and machine for the JSON file and the head of the output."""
    return {
        "command": command,
        "rounds": rounds,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "kernel": platform.release(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
        },
        "versions": {name: _version(argv) for name, argv in _VERSIONS.items()},
    }


def run(argv: Sequence[str | Path], cwd: Path | None = None) -> Cost:
    """Run a program to its end and say what it cost. Raises NotAble with its words if it fails."""
    if shutil.which(str(argv[0])) is None:
        raise NotAble(f"{argv[0]} is not installed")
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise NotAble(
                errors.read().decode(errors="replace").strip()[-160:] or f"exit {process.returncode}"
            )
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds so far of a process, its children, and those of them that have ended."""
    return sum(_cpu_seconds(one) for one in _family(pid))


def peak_mb_of(pid: int) -> float:
    """Return the peak resident memory so far of the largest among a process and its children."""
    return max(_status_mb(one, "VmHWM") for one in _family(pid))


def resident_mb_of(pid: int) -> float:
    """Return the resident memory of a process now."""
    return _status_mb(pid, "VmRSS")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in _family(int(child)))]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[_STAT_TIMES])) / _TICKS


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def sync(path: Path) -> float:
    """Flush the filesystem of *path*; return the seconds it took."""
    start = time.perf_counter()
    subprocess.run(["sync", "-f", path], check=True)
    return time.perf_counter() - start


@contextlib.contextmanager
def fresh(kind: str) -> Iterator[Path]:
    """Mount a new, empty filesystem for one run: ``tmpfs`` or ``disk`` (ext4 on a loop device).

    ext4 slows down where inodes were deleted a moment ago, so a directory that is used again would
    measure the runs before. Raises NotAble.
    """
    with tempfile.TemporaryDirectory(prefix="layerfs-bench.", dir=cache_directory()) as base:
        target = Path(base, "fs")
        with _tmpfs(target) if kind == "tmpfs" else _ext4(Path(base, "image"), target) as path:
            yield path


@contextlib.contextmanager
def _tmpfs(target: Path) -> Iterator[Path]:
    with mounts.tmpfs(target, "size=80%", "nr_inodes=0"):
        yield target


@contextlib.contextmanager
def _ext4(image: Path, target: Path) -> Iterator[Path]:
    with image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    _tool("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-N", "400000", str(image))
    device = _tool("losetup", "--find", "--show", "--direct-io=on", str(image))
    try:
        with mounts.mounted("ext4", device, target):
            yield target
    finally:
        _tool("losetup", "--detach", device)


def _tool(*argv: str) -> str:
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as exc:
        raise NotAble(f"{argv[0]}: {getattr(exc, 'stderr', '') or exc}".strip()) from exc


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(argv: list[str]) -> str:
    """Return the line that names the program, else the first."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return "not installed"
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    return next((line for line in lines if line.startswith(argv[0])), lines[0])
