"""A control group with too few processes or too little memory: a pull in it, and a mount with readers."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.attacks import ground
from tests.attacks.ground import Ground
from tests.conftest import skip_for_lack_of
from tests.support import clients, daemon
from tests.support.daemon import LAYERFS, DaemonFailed

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse, pytest.mark.long]

_GROUPS: Final = Path("/sys/fs/cgroup")
_OLD_NAMES: Final = {"pids.max": "pids.max", "memory.max": "memory.limit_in_bytes"}
"""Of version 1 of control groups (Documentation/admin-guide/cgroup-v1), where each controller has a tree."""


@contextlib.contextmanager
def group(limit: str, value: int) -> Iterator[Path]:
    """Make a control group with one limit; skip the test where this machine has none to make."""
    controller, name = limit.partition(".")[0], limit
    base = _GROUPS
    if not (_GROUPS / "cgroup.controllers").exists():
        base, name = _GROUPS / controller, _OLD_NAMES[limit]
    path = base / f"layerfs-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        path.mkdir()
    except OSError:
        skip_for_lack_of("control groups that it may make")
    try:
        if not (path / name).exists():
            skip_for_lack_of(f"the controller of {limit} for new control groups")
        (path / name).write_text(str(value))
        yield path
    finally:
        clients.wait_until(lambda: not (path / "cgroup.procs").read_text())
        path.rmdir()


def _inside(path: Path) -> list[str]:
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(path)]


LIMITS = [("pids.max", n) for n in (1, 2, 4, 6, 8, 12, 16, 24, 40)] + [
    ("memory.max", n << 20) for n in (20, 40, 60, 80, 100, 150, 200)
]


@pytest.mark.parametrize(("limit", "value"), LIMITS)
def test_a_pull_in_a_group_harms_nothing(attacked: Ground, tmp_path: Path, limit: str, value: int) -> None:
    store = tmp_path / "store"  # on a disk: what is in memory counts as the group's
    with group(limit, value) as path:
        done = ground.pull(store, attacked.names[0], before=_inside(path))

    attacked.nothing_runs()
    if store.exists():
        found = attacked.compare(store)
        assert done.returncode or found == len(attacked.images[0].layers), done.stderr
    attacked.heal(store, first=1)


@pytest.mark.allow_warnings
@pytest.mark.parametrize(("limit", "value"), LIMITS)
def test_a_mount_in_a_group_harms_nothing(
    attacked: Ground, tmp_path: Path, mountpoint: Path, limit: str, value: int
) -> None:
    """It may end: then its callers get errors, and a new one goes on with the same store."""
    store = tmp_path / "store"
    command = [*LAYERFS, "mount", "--store", str(store), "-f", str(mountpoint)]
    with (
        group(limit, value) as path,
        contextlib.suppress(DaemonFailed),
        daemon.running(store, mountpoint, command=[*_inside(path), *command]) as running,
        contextlib.ExitStack() as stack,
    ):
        readers = [
            stack.enter_context(
                clients.started("tar", "-C", running.images / name / "rootfs/", "-cf", "/dev/null", ".")
            )
            for name in attacked.names
        ]
        for reader in readers:
            clients.finish(reader)

    attacked.nothing_runs()
    if store.exists():
        attacked.compare(store)
    with daemon.running(store, mountpoint) as running:
        for name in attacked.names:
            assert "base" in clients.names(running.images / name / "rootfs/")
    attacked.nothing_runs()
    attacked.heal(store)
