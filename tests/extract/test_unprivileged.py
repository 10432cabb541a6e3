"""Writers that may not do everything: what they cannot set is recorded, and the tree stays theirs."""

import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from layerfs.layer.lost import Lost
from layerfs.layer.tables import Tables, lost_rows
from tests.conftest import skip_for_lack_of
from tests.extract.extracting import Extract, run_alone
from tests.support.images import (
    chardev,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    tar,
    whiteout,
)

pytestmark = pytest.mark.needs_root

_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)

ENTRIES = [
    directory("./"), directory("plain"), file("plain/f", b"x"), symlink("plain/l", "f"),
    hardlink("plain/h", "plain/f"),
    directory("locked", mode=0o500), file("locked/secret", b"s", mode=0o000), directory("locked/d", mode=0),
    file("locked/d/f"), file("owned", uid=5, gid=6), directory("dir", uid=7, gid=0),
    symlink("link", "x", uid=8),
    file("setuid", mode=0o4755), chardev("null", 1, 3, mode=0o666), fifo("pipe"),
    fifo("owned pipe", gid=9),
    file("capable", xattrs={"security.capability": _CAPABILITY, "user.a": b"1"}),
    whiteout("gone"), opaque("plain"),
]  # fmt: skip


_NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Root's files without root's capabilities: so that the interpreter can be read, wherever it is."""


def _lost(tables: Tables) -> dict[str, Lost]:
    return {path.decode(): lost for path, lost in lost_rows(tables.lost)}


def test_an_ordinary_user_records_what_it_could_not_set(extract: Extract) -> None:
    tables, warnings = run_alone(extract.job(tar(ENTRIES), owner="user"), *_NO_RIGHTS)

    assert warnings == ()
    assert _lost(tables) == {
        "owned": Lost(owner=(5, 6)),
        "dir": Lost(owner=(7, 0)),
        "link": Lost(owner=(8, 0)),
        "owned pipe": Lost(owner=(0, 9)),
        "locked": Lost(mode=0o500),
        "locked/secret": Lost(mode=0),
        "locked/d": Lost(mode=0),
        "null": Lost(mode=stat.S_IFCHR | 0o666, device=(1, 3)),
        "capable": Lost(xattrs={b"security.capability": _CAPABILITY}),
    }


def test_its_tree_is_complete_readable_and_removable(extract: Extract) -> None:
    job = extract.job(tar(ENTRIES), owner="user")

    run_alone(job, *_NO_RIGHTS)

    target = Path(job.target)
    assert {os.lstat(path).st_uid for path in target.rglob("*")} == {0}
    assert stat.S_IMODE(os.lstat(target / "setuid").st_mode) == 0o4755
    assert stat.S_ISREG(os.lstat(target / "null").st_mode)
    assert stat.S_ISFIFO(os.lstat(target / "pipe").st_mode)
    assert os.lstat(target / "plain/h").st_nlink == 2
    assert os.getxattr(target / "plain", "user.overlay.opaque") == b"y"
    assert os.getxattr(target / "capable", "user.a") == b"1"
    gone = os.lstat(target / "gone")
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    for command in (["tar", "-cf", "/dev/null", job.target], ["rm", "-r", job.target]):
        subprocess.run([*_NO_RIGHTS, *command], check=True, capture_output=True)


def test_a_namespace_root_sets_what_its_namespace_has(extract: Extract) -> None:
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True).returncode:
        skip_for_lack_of("user namespaces")
    job = extract.job(tar(ENTRIES), owner="namespace")

    tables, _ = run_alone(job, "unshare", "--user", "--map-root-user")

    lost = _lost(tables)
    assert lost["owned"] == Lost(owner=(5, 6))
    assert lost["null"] == Lost(mode=stat.S_IFCHR | 0o666, device=(1, 3))
    assert "plain" not in lost
    assert "plain/f" not in lost
    assert os.getxattr(os.path.join(job.target, "plain"), "user.overlay.opaque") == b"y"
    shutil.rmtree(job.target)


def test_a_replaced_entry_loses_its_note(extract: Extract) -> None:
    tree = extract(
        file("f", mode=0), file("f"), file("d/g", mode=0), file("d"), directory("e", mode=0), directory("e"),
        owner="user",
    )  # fmt: skip

    assert tree.listed("lost") == ()
