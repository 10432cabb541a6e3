"""Writes the archives that inputs are made of: a distribution, this machine's files, made-up trees."""

import io
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from benchlib import machine

_DISTRIBUTION_ENTRIES, _DISTRIBUTION_BYTES = 7_000, 200 << 20
_SMALL_ENTRIES, _SMALL_BYTES, _SMALL_LIMIT = 60_000, 700 << 20, 4 << 20
_WILD_ENTRIES, _WILD_LIMIT = 46_000, 64 << 10
_TINY_DIRECTORIES, _TINY_FILES = 1_000, 100
_LARGE_FILES, _LARGE_BYTES = 24, 64 << 20
_LINKS_DIRECTORIES, _LINKS_FILES = 200, 20_000
_BLOCK = 1 << 16


def distribution(out: IO[bytes]) -> None:
    """Archive a fresh Debian minbase root, or 200 MB of /usr where no mirror can be reached."""
    with tempfile.TemporaryDirectory(prefix="root.", dir=machine.cache_directory()) as base:
        root = Path(base, "root")
        if _debootstrap(root):
            command = ["tar", "--sort=name", "--numeric-owner", "--xattrs", "-C", str(root), "-cf", "-", "."]
            subprocess.run(command, stdout=out, check=True)
            return
    print("bench: debootstrap reaches no mirror; input (a) is taken from /usr", file=sys.stderr)
    _pack(out, _files_of_this_machine(1 << 40), _DISTRIBUTION_ENTRIES, _DISTRIBUTION_BYTES)


def small_files(out: IO[bytes]) -> None:
    """Archive about 60,000 files of at most 4 MiB, 700 MB together at most, of those this machine has."""
    _pack(out, _files_of_this_machine(_SMALL_LIMIT), _SMALL_ENTRIES, _SMALL_BYTES)


def small_files_of_gnu_tar(out: IO[bytes]) -> None:
    """Archive 46,000 files of at most 64 KiB without PAX headers: long names have a header of GNU tar."""
    _pack_wild(out, tarfile.GNU_FORMAT)


def small_files_of_go(out: IO[bytes]) -> None:
    """Archive the same files as docker, buildkit, podman and kaniko do, by Go's archive/tar.

    Times are whole seconds, so that only names that do not fit into a header have a PAX header.
    """
    _pack_wild(out, tarfile.PAX_FORMAT)


def _pack_wild(out: IO[bytes], form: int) -> None:
    _pack(out, _files_of_this_machine(_WILD_LIMIT), _WILD_ENTRIES, 1 << 40, form, whole_seconds=True)


def tiny_files(out: IO[bytes]) -> None:
    """Archive 100,000 files of at most 780 bytes in 1,000 directories, in plain ustar."""
    source = random.Random(21)
    words = [source.randbytes(6).hex().encode() for _ in range(3000)]
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for directory in range(_TINY_DIRECTORIES):
            archive.addfile(_info(f"node_modules/package{directory}", tarfile.DIRTYPE))
            for number in range(_TINY_FILES):
                content = b" ".join(source.choices(words, k=source.randrange(60)))
                info = _info(f"node_modules/package{directory}/file{number}.js")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            archive.members = []  # type: ignore[attr-defined]  # it remembers every member


def large_files(out: IO[bytes]) -> None:
    """Archive 24 files of 64 MiB that compress to about half."""
    content = _HalfRandom()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(_LARGE_FILES):
            info = _info(f"models/layer{number}.bin")
            info.size = _LARGE_BYTES
            archive.addfile(info, content)  # type: ignore[arg-type]  # it needs read() alone


def links(out: IO[bytes]) -> None:
    """Archive 200 directories deep and wide with 20,000 empty files, and links of both kinds."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        deep = "deep"
        places = []
        for number in range(_LINKS_DIRECTORIES):
            deep = f"{deep}/d" if number % 2 else deep
            place = deep if number % 2 else f"wide{number}"
            places.append(place)
            archive.addfile(_info(place, tarfile.DIRTYPE))
        for number in range(_LINKS_FILES):
            name = f"{places[number % len(places)]}/file{number}"
            archive.addfile(_info(name))
            if number % 10 == 0:
                archive.addfile(_info(f"{name}.link", tarfile.LNKTYPE, name))
                archive.addfile(_info(f"{name}.symlink", tarfile.SYMTYPE, f"file{number}"))


def one_file(out: IO[bytes], size: int) -> None:
    """Archive one file that compresses to about half."""
    info = _info("file")
    info.size = size
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, _HalfRandom())  # type: ignore[arg-type]  # it needs read() alone


class _HalfRandom:
    """An endless file: blocks of noise and of repetition by turns, the same in each run."""

    def __init__(self) -> None:
        self._random = random.Random(20)
        self._noise = True
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            block = (
                self._random.randbytes(_BLOCK) if self._noise else self._random.randbytes(64) * (_BLOCK // 64)
            )
            self._rest += block
            self._noise = not self._noise
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _debootstrap(root: Path) -> bool:
    tool = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if tool is None:
        return False
    suite, mirror = _suite_and_mirror()
    command = [tool, "--variant=minbase", suite, str(root), mirror]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0


def _suite_and_mirror() -> tuple[str, str]:
    """Return codename and mirror that apt uses here, else stable at deb.debian.org."""
    targets = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    try:
        lines = subprocess.run(targets, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        lines = []
    for line in lines:
        suite, _, mirror = line.partition(" ")
        if mirror and "-" not in suite:
            return suite, mirror
    return "stable", "http://deb.debian.org/debian"


def _files_of_this_machine(limit: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield files of at most *limit* bytes, links and directories of /usr and of Python, in a fixed order."""
    for top in ("/usr/share", "/usr/lib", "/usr/include", sys.base_prefix, sys.prefix, "/usr"):
        for parent, directories, files in os.walk(top):
            directories.sort()
            for name in [None, *sorted(files)]:
                path = parent if name is None else f"{parent}/{name}"
                found = os.lstat(path)
                small = stat.S_ISREG(found.st_mode) and found.st_size <= limit
                if small or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
                    yield path, found


def _pack(
    out: IO[bytes],
    files: Iterator[tuple[str, os.stat_result]],
    entries: int,
    size: int,
    form: int = tarfile.PAX_FORMAT,
    *,
    whole_seconds: bool = False,
) -> None:
    """Archive *files*, several times over if there are too few, until one of the limits is reached."""
    known = dict(files)

    def changed(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime = int(info.mtime) if whole_seconds else info.mtime
        return info

    with tarfile.open(fileobj=out, mode="w|", format=form) as archive:
        for copy in range(100):
            for path, found in known.items():
                if entries <= 0 or size <= 0:
                    return
                archive.add(path, f"copy{copy}{path}", recursive=False, filter=changed)
                archive.members = []  # type: ignore[attr-defined]  # it remembers every member
                entries, size = entries - 1, size - (found.st_size if stat.S_ISREG(found.st_mode) else 0)


def _info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_700_000_000
    return info
