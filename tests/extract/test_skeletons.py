"""Skeletons: a layer made from its TOC alone equals the extracted one in all but content."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from layerfs.errors import DigestMismatch, InvalidToc, LayerfsError
from layerfs.extract.job import SkeletonJob
from layerfs.layer.contents import parse_row
from layerfs.layer.kinds import is_whiteout
from layerfs.layer.overlayfs import object_redirect
from layerfs.layer.tables import rows
from layerfs.oci import Digest
from tests.extract.extracting import Extract, Tree, tables_in
from tests.support.images import directory, file, hardlink, opaque, symlink, tar, whiteout
from tests.support.stacks import layers
from tests.support.tocs import LazyLayer, estargz, tellable

pytestmark = pytest.mark.needs_root

METACOPY, REDIRECT = "trusted.overlay.metacopy", "trusted.overlay.redirect"


class Skeletons:
    """Makes skeletons the way the daemon does."""

    def __init__(self, extract: Extract) -> None:
        self._extract = extract
        self.contents = b""
        """The fifth table of the last one."""

    def __call__(self, layer: LazyLayer, **changes: Any) -> Tree:
        number = len(os.listdir(self._extract.directory))
        toc, target = (self._extract.directory / f"{name}-{number}" for name in ("toc", "skeleton"))
        toc.write_bytes(layer.toc)
        target.mkdir(0o700)
        job: dict[str, Any] = {"toc": str(toc), "place": layer.place, "blob_size": len(layer.blob)}
        listed: list[bytes] = []
        with self._extract.pool.extractor() as extractor:
            extractor.start(SkeletonJob(**job | {"target": str(target)} | changes))
            extraction = extractor.result(listed.append)
            data = b"".join(listed)
            self.contents = data[sum(extraction.tables) :]
            assert len(self.contents) == extraction.contents
            tables = tables_in(extraction, [data[: sum(extraction.tables)]])
            return Tree(target, extraction, extractor.warnings, tables)


@pytest.fixture
def skeleton(extract: Extract) -> Skeletons:
    return Skeletons(extract)


def facts(tree: Tree) -> dict[bytes, tuple[Any, ...]]:
    """Return all that is shown of a tree but content, by path; hard links by the first name of theirs."""
    root = os.fsencode(tree.path)
    first: dict[int, bytes] = {}
    found: dict[bytes, tuple[Any, ...]] = {}
    for at, directories, names in os.walk(root):
        for path in [at, *(os.path.join(at, name) for name in [*directories, *names])]:
            status = os.lstat(path)
            xattrs = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
                if name not in (METACOPY, REDIRECT)
            }
            name = os.path.relpath(path, root)
            found[name] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev,
                0 if stat.S_ISDIR(status.st_mode) else status.st_size,
                0 if is_whiteout(status.st_mode, status.st_rdev) else status.st_mtime_ns, xattrs,
                os.readlink(path) if os.path.islink(path) else b"",
            )  # fmt: skip
    for name in sorted(found):
        ino = os.lstat(os.path.join(root, name)).st_ino
        found[name] += (first.setdefault(ino, name),)
    return found


SMALL = tar(
    [
        directory("etc", 0o750, uid=3, gid=4),
        file("etc/a", b"content", 0o4755, uid=7, xattrs={"user.note": b"x"}),
        hardlink("etc/b", "etc/a"),
        file("etc/empty"),
        file("implied/large", bytes(100_000)),
        file("implied/same", b"content"),
        symlink("link", "etc/a"),
        whiteout("etc/gone"),
        opaque("implied"),
    ]
)


def test_a_skeleton_is_the_layer_without_content(extract: Extract, skeleton: Skeletons) -> None:
    layer = estargz(SMALL, chunk=40_000)

    made = skeleton(layer)

    whole = extract(archive=layer.archive)
    assert facts(made) == facts(whole)
    assert made.tables == whole.tables
    counted = ("entries", "files", "file_bytes", "whiteouts", "opaques", "implied", "lost")
    for name in counted:
        assert getattr(made.extraction, name) == getattr(whole.extraction, name), name
    assert made.extraction.digest == str(layer.place.digest)
    assert made.extraction.blob_size == len(layer.blob)


def test_each_stub_says_which_object_it_is_and_takes_no_block(skeleton: Skeletons) -> None:
    made = skeleton(estargz(SMALL))

    id_ = Digest.of(b"content").object_id
    xattrs = made.xattrs("etc/a")
    assert (xattrs[METACOPY], xattrs[REDIRECT]) == (b"", object_redirect(id_))
    assert made.xattrs("implied/same")[REDIRECT] == xattrs[REDIRECT]
    assert made.xattrs("etc/empty") == {}
    assert made.lstat("implied/large").st_blocks == 0


def test_the_fifth_table_says_where_the_content_is(skeleton: Skeletons) -> None:
    layer = estargz(SMALL, chunk=40_000)

    extraction = skeleton(layer).extraction

    found = dict(map(parse_row, rows(skeleton.contents)))
    assert list(found) == sorted(found)
    assert extraction.objects == len(found) == 3  # one of them the TOC itself
    large = found[Digest.of(bytes(100_000)).object_id]
    assert [(piece.start, piece.size) for piece in large.pieces] == [
        (0, 40_000),
        (40_000, 40_000),
        (80_000, 20_000),
    ]


@given(entries=layers())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_layers(extract: Extract, skeleton: Skeletons, entries: Any) -> None:
    layer = estargz(tar(tellable(entries)), chunk=3)

    made = skeleton(layer)

    whole = extract(archive=layer.archive)
    assert facts(made) == facts(whole)
    assert made.tables == whole.tables


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"etc/a": {"name": "../a"}}, InvalidToc, id="a name that leads out"),
        pytest.param({"link": {"name": "etc/empty"}}, InvalidToc, id="a name twice"),
        pytest.param({"etc/b": {"linkName": "nothing"}}, InvalidToc, id="a link to nothing"),
        pytest.param({"implied/same": {"size": 8}}, InvalidToc, id="one digest of two sizes"),
    ],
)
def test_a_toc_that_breaks_a_rule_makes_no_skeleton(
    skeleton: Skeletons, changes: dict[str, Any], error: type[LayerfsError]
) -> None:
    with pytest.raises(error):
        skeleton(estargz(SMALL, changes=changes))


def test_a_toc_of_another_digest_is_not_parsed(skeleton: Skeletons) -> None:
    layer, other = estargz(SMALL), estargz(tar([file("x", b"y")]))
    lying = replace(layer, place=msgspec.structs.replace(layer.place, digest=other.place.digest))

    with pytest.raises(DigestMismatch):
        skeleton(lying)


def test_attributes_of_overlayfs_in_a_toc_do_not_reach_the_disk(skeleton: Skeletons) -> None:
    evil = {"trusted.overlay.redirect": b"/etc/shadow", "trusted.overlay.metacopy": b""}
    archive = tar(
        [file("empty", xattrs=evil), file("full", b"content", xattrs=evil), directory("d", xattrs=evil)]
    )

    made = skeleton(estargz(archive))

    assert made.xattrs("empty") == made.xattrs("d") == {}
    assert made.xattrs("full")[REDIRECT] == object_redirect(Digest.of(b"content").object_id)


def test_a_skeleton_of_an_ordinary_users_has_attributes_that_he_may_set(skeleton: Skeletons) -> None:
    made = skeleton(estargz(SMALL), owner="user")

    assert set(made.xattrs("etc/a")) == {"user.overlay.metacopy", "user.overlay.redirect", "user.note"}
    assert made.lstat("etc/a").st_uid == os.getuid()
    assert made.extraction.lost > 0


def test_a_file_of_the_toc_that_cannot_be_read_is_no_fault_of_the_image(
    skeleton: Skeletons, tmp_path: Path
) -> None:
    with pytest.raises(LayerfsError, match="cannot read"):
        skeleton(estargz(SMALL), toc=str(tmp_path / "missing"))


def test_a_worker_goes_on_after_a_toc_that_it_refused(extract: Extract, skeleton: Skeletons) -> None:
    with pytest.raises(InvalidToc):
        skeleton(estargz(SMALL, changes={"etc/a": {"name": "../a"}}))
    assert skeleton(estargz(SMALL)).extraction.objects == 3
    assert extract(file("a", b"b")).extraction.files == 1


def test_what_breaks_a_rule_for_all_entries_is_told_although_the_writer_failed_before(
    skeleton: Skeletons,
) -> None:
    """The writer has each entry while the next ones are judged: here it meets a file as a directory."""
    entries = [file("a", b"a"), *(file(f"b/{number}") for number in range(2000)), file("d", b"d")]
    with pytest.raises(InvalidToc, match="which is no directory"):
        skeleton(estargz(tar(entries), changes={"b/0": {"name": "a/b"}}))
