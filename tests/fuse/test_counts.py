"""The kernel is asked as little as possible, and what it was told of is forgotten exactly."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.fuse.conftest import Edge, drop_caches, edge_at, wait_until
from tests.support.memory_tree import MANY

pytestmark = [pytest.mark.needs_fuse, pytest.mark.needs_root]

UNDISTURBED = 20
"""Attempts, one of which will be undisturbed: other tests drop the caches of this machine, too."""

# Requests at most, cold and warm; a counted kind that is not named may not occur. A cold path of two names is
# two lookups.
LIMITS: dict[str, tuple[list[str], dict[str, int], dict[str, int]]] = {
    "ls": (
        ["ls", "many"],
        {"lookup": 1, "opendir": 1, "readdir": 8, "releasedir": 1},
        {"opendir": 1, "readdir": 8, "releasedir": 1, "getattr": 1},
    ),
    # Old coreutils ask for two attributes and learn that there are none; new ones list those of each file.
    "ls -l": (
        ["ls", "-l", "many"],
        {"lookup": 1, "opendir": 1, "readdir": 8, "releasedir": 1, "getxattr": 3, "listxattr": 1001},
        {"opendir": 1, "readdir": 8, "releasedir": 1, "getxattr": 3, "getattr": 1, "listxattr": 1001},
    ),
    "stat": (["stat", "plain/big"], {"lookup": 2}, {}),
    "stat of nothing": (["stat", "plain/nothing"], {"lookup": 2}, {}),
    "cat of a small file": (
        ["cat", "plain/hello"],
        {"lookup": 2, "open": 1, "release": 1, "flush": 1},
        {"open": 1, "release": 1},
    ),
    "cat of 5 MiB": (
        ["cat", "plain/big"],
        {"lookup": 2, "open": 1, "release": 1, "flush": 1, "read": 8},
        {"open": 1, "release": 1},
    ),
    "readlink": (["readlink", "plain/link"], {"lookup": 2, "readlink": 1}, {"readlink": 1}),
}


@pytest.mark.parametrize(
    ("command", "cold", "warm"), [pytest.param(*row, id=name) for name, row in LIMITS.items()]
)
def test_a_command_asks_no_more_than_its_row_says(
    shared_edge: Edge, command: list[str], cold: dict[str, int], warm: dict[str, int]
) -> None:
    drop_caches()
    for limits in (cold, warm):
        tried = []
        for _ in range(UNDISTURBED):
            tried.append(_asked_by(shared_edge, command))
            if all(n <= limits.get(name, 0) for name, n in tried[-1].items() if name in COUNTED):
                break
        else:
            pytest.fail(f"{tried} (expected at most {limits})")


def _asked_by(edge: Edge, command: list[str]) -> dict[str, int]:
    with edge.requests.during() as asked:
        subprocess.run(command, cwd=edge.root, capture_output=True)
        _settle(edge)
    return dict(asked)


COUNTED = (
    "lookup",
    "readlink",
    "open",
    "read",
    "opendir",
    "readdir",
    "getxattr",
    "listxattr",
    "flush",
    "access",
)


def _settle(edge: Edge) -> None:
    """Wait for the requests that nobody waits for: what was opened is released, and read ahead by then."""

    def is_all_given_back() -> bool:
        asked = edge.requests.read()
        return all(
            asked.get(opened, 0) == asked.get(released, 0)
            for opened, released in (("open", "release"), ("opendir", "releasedir"))
        )

    wait_until(is_all_given_back)


def test_everything_told_to_the_kernel_is_forgotten_exactly(edge: Edge) -> None:
    def are_told() -> bool:  # unless others drop the caches of this machine
        for directory in ("plain", "many", "xattrs"):
            subprocess.run(["ls", "-lR", edge.root / directory], check=True, capture_output=True)
        for number in range(0, MANY, 7):
            (edge.root / "many" / f"file-{number:05}").stat()
        return edge.stats()["inodes"] > MANY

    for _ in range(2):
        wait_until(are_told)

    def are_forgotten() -> bool:
        drop_caches()  # each time: what was in use for a moment stays
        return edge.stats()["inodes"] <= 10

    wait_until(are_forgotten)
    assert "forgotten (expected" not in edge.daemon.log()
    assert (edge.root / "many" / "file-00001").read_bytes() == b"1\n"


def test_an_open_file_outlives_the_caches(edge: Edge) -> None:
    path = edge.root / "plain" / "big"
    expected = (edge.control / "scratch" / "big").read_bytes()
    with path.open("rb") as file:
        drop_caches()
        Path("/proc/sys/vm/drop_caches").write_text("1")
        assert file.read() == expected


def test_listings_and_files_are_given_back(edge: Edge) -> None:
    with os.scandir(edge.root / "many") as found, (edge.root / "plain" / "big").open("rb"):
        next(found)
        wait_until(lambda: _in_use(edge) == (1, 1))
    wait_until(lambda: _in_use(edge) == (0, 0))


def _in_use(edge: Edge) -> tuple[int, int]:
    return edge.stats()["listings"], edge.stats()["files"]


def test_files_beyond_a_budget_are_forgotten_unless_they_are_open(tmp_path: Path) -> None:
    """The table is as large as the last files that were met, however many there are; nothing is lost."""
    for attempt in range(UNDISTURBED):
        with edge_at(tmp_path / str(attempt), "--files", "100") as edge:
            many = edge.root / "many"
            first = many / "file-00000"
            with first.open("rb") as kept:
                _meet_all_files(many)
                if not _falls_to(edge, 120):
                    continue  # the kernel has dropped their names itself, and keeps the inodes for now
                assert os.readlink(f"/proc/self/fd/{kept.fileno()}") == str(first), "shown as deleted"
                assert kept.read() == b"0\n"
            assert (many / "file-00500").read_bytes() == b"500\n"
            assert "forgotten (expected" not in edge.daemon.log()
            return
    pytest.fail("files are not forgotten")


def _meet_all_files(many: Path) -> None:
    for _ in range(2):
        listed = subprocess.run(["ls", "-l", many], check=True, capture_output=True).stdout
        assert listed.count(b"file-") == MANY
        for number in range(0, MANY, 3):
            (many / f"file-{number:05}").stat()


def _falls_to(edge: Edge, most: int) -> bool:
    """Say whether the daemon's table of inodes becomes that small: it goes on for as long as it shrinks."""
    before = edge.stats()["inodes"]
    while before > most:
        time.sleep(1)
        now = edge.stats()["inodes"]
        if now >= before:
            return now <= most
        before = now
    return True
