"""Properties over whole archives: out and in again is the same; what is damaged is refused, never obeyed."""

import dataclasses
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerfs.errors import LayerfsError, WorkerDied
from tests.extract.extracting import Extract
from tests.layer.headers import END, header, long_name, member, pax
from tests.support.canary import assert_same, snapshot
from tests.support.images import Entry, directory, fifo, file, symlink, tar

pytestmark = pytest.mark.needs_root

_SETTINGS = settings(max_examples=25, suppress_health_check=list(HealthCheck))

_names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, 0x2F}.intersection(name) and not name.startswith(b".")
)
_attributes = st.fixed_dictionaries(
    {
        "mode": st.integers(0, 0o7777),
        "uid": st.sampled_from([0, 1, 70000, 2**31]),
        "gid": st.sampled_from([0, 5]),
        "mtime": st.integers(-(2**31), 2**33),
    }
)


@st.composite
def _trees(draw: st.DrawFn) -> list[Entry]:
    """Draw entries with distinct names, each directory listed before its content."""
    directories = [b""]
    entries = []
    for name in draw(st.lists(_names, unique=True, max_size=12)):
        path = b"/".join(filter(None, (draw(st.sampled_from(directories)), name)))
        attributes: dict[str, Any] = draw(_attributes)
        kind = draw(st.sampled_from(["file", "directory", "symlink", "fifo"]))
        if kind == "file":
            entries.append(file(path, draw(st.binary(max_size=2000)), **attributes))
        elif kind == "directory":
            entries.append(directory(path, **attributes))
            directories.append(path)
        elif kind == "symlink":
            del attributes["mode"]
            entries.append(symlink(path, draw(_names), **attributes))
        else:
            entries.append(fifo(path, **attributes))
    return entries


def _facts(archive: bytes) -> dict[bytes, tuple[Any, ...]]:
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as opened:
        found = {}
        for info in opened.getmembers():
            content = opened.extractfile(info) if info.isreg() else None
            found[os.fsencode(info.name).removeprefix(b"./")] = (
                info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname,
                content.read() if content else b"",
            )  # fmt: skip
    found.pop(b".", None)
    return found


@given(entries=_trees())
@_SETTINGS
def test_archiving_what_was_extracted_gives_the_same_entries(extract: Extract, entries: list[Entry]) -> None:
    archive = tar(entries)

    tree = extract(archive=archive)

    options = ["--format=posix", "--pax-option=delete=atime,delete=ctime"]
    command = ["tar", "-C", str(tree.path), *options, "-cf", "-", "."]
    again = subprocess.run(command, capture_output=True, check=True).stdout
    assert _facts(again) == _facts(archive)


def _make_real_tree(path: Path) -> None:
    """Fill *path* with what archives have trouble with."""
    deep = path.joinpath(*["d" * 60] * 5)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(os.urandom(10_000))
    (deep / ("long" * 60)).symlink_to("x" * 200)
    (path / "hard").hardlink_to(deep / "f")
    with (path / "sparse").open("wb") as sparse:
        for at in range(0, 40 << 20, 1 << 20):
            sparse.seek(at)
            sparse.write(b"data")
    os.mkfifo(path / "fifo")
    os.mknod(path / "null", 0o20666, os.makedev(1, 3))
    os.setxattr(path / "hard", "user.comment", b"\0binary\n")
    (path / "locked").mkdir()
    (path / "locked" / "f").write_bytes(b"")
    os.chown(path / "locked", 2_000_000_000, 5)
    (path / "locked").chmod(0o2500)
    os.utime(path / "locked", ns=(0, -5 * 10**9))


@pytest.mark.parametrize(
    "writer",
    [
        pytest.param(["tar", "--format=gnu"], id="GNU tar, gnu"),
        pytest.param(["tar", "--format=gnu", "--sparse"], id="GNU tar, gnu, sparse"),
        *(
            pytest.param(
                ["tar", "--format=posix", "--xattrs", "--sparse", f"--sparse-version={version}"],
                id=f"GNU tar, pax, sparse {version}",
            )
            for version in ("0.0", "0.1", "1.0")
        ),
        pytest.param(["bsdtar", "--format=pax"], id="bsdtar, pax"),
    ],
)
def test_what_the_fields_tools_write_comes_out_as_it_was(
    extract: Extract, tmp_path: Path, writer: list[str]
) -> None:
    original = tmp_path / "original"
    original.mkdir()
    _make_real_tree(original)
    archive = subprocess.run(
        [*writer, "-C", str(original), "-cf", "-", "."], capture_output=True, check=True
    ).stdout

    tree = extract(archive=archive)

    has_fractions = "gnu" not in writer[1]
    has_xattrs = "--xattrs" in writer or "--format=pax" in writer
    expected, found = snapshot(original), snapshot(tree.path)
    if not has_fractions:
        expected = {path: _whole_seconds(fact) for path, fact in expected.items()}
    assert_same(expected, found, ignore=set() if has_xattrs else {"xattrs"})
    if "--sparse" in writer or writer == ["bsdtar", "--format=pax"]:
        assert tree.lstat("sparse").st_blocks * 512 < 4 << 20
    assert tree.listed("implied") == ()


def _whole_seconds(fact: Any) -> Any:
    return dataclasses.replace(fact, mtime_ns=fact.mtime_ns // 10**9 * 10**9)


_SAMPLE = (
    pax((b"mtime", b"5.5"), (b"SCHILY.xattr.user.a", b"b")) + member(b"hi" * 400, name=b"d/file", uid=7)
    + header(b"d/", b"5") + long_name(b"l" * 200) + header(b"x", b"2", link=b"d")
    + header(b"link", b"1", link=b"d/file") + member(b"", name=b"d/.wh.gone") + END
)  # fmt: skip


@given(
    block=st.integers(0, len(_SAMPLE) // 512 - 3),
    changes=st.lists(
        st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3
    ),
)
@settings(_SETTINGS, max_examples=150)
def test_a_changed_archive_is_extracted_below_its_root_or_refused(
    extract: Extract, block: int, changes: list[tuple[int, bytes]]
) -> None:
    archive = bytearray(_SAMPLE)
    start = block * 512
    for at, text in changes:
        text = text[: 512 - at]
        archive[start + at : start + at + len(text)] = text
    archive[start + 148 : start + 156] = b" " * 8
    archive[start + 148 : start + 156] = b"%06o\0 " % sum(archive[start : start + 512])

    try:
        extract(archive=bytes(archive))
    except WorkerDied:
        raise
    except LayerfsError:
        pass
