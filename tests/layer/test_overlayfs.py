"""What markers stand for in kernel overlayfs, and the text of its options."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import UsageError
from layerfs.layer.kinds import Kind, is_whiteout, kind_of
from layerfs.layer.overlayfs import (
    OPAQUE_XATTRS,
    OverlayForm,
    directory_option,
    fuse_lowerdir_option,
    lowerdir_option,
    object_of,
    object_redirect,
    opaque_xattr,
    opaques_and_whiteouts,
    split_lowerdir,
    with_ancestors,
)
from layerfs.layer.paths import split
from layerfs.oci import Digest

DIRECTORY, OTHER = Kind.DIRECTORY, Kind.OTHER


@pytest.mark.parametrize(
    ("hidden", "opaque", "has", "opaques", "whiteouts"),
    [
        pytest.param([b"a"], [], {}, [], [b"a"], id="a name that is not there"),
        pytest.param([b"a"], [], {b"a": DIRECTORY}, [b"a"], [], id="a directory is opaque"),
        pytest.param([b"a"], [], {b"a": OTHER}, [], [], id="a file hides by itself"),
        pytest.param([b"d/a"], [b"d"], {}, [b"d"], [], id="in an opaque directory"),
        pytest.param([b"d/e/a"], [b""], {}, [b""], [], id="below an opaque root"),
        pytest.param(
            [b"d", b"d/e"], [], {b"d": DIRECTORY}, [b"d"], [],
            id="below a directory that a marker makes opaque",
        ),
        pytest.param([b"d/b", b"d/a", b"d/a"], [], {}, [], [b"d/a", b"d/b"], id="sorted, once"),
    ],
)  # fmt: skip
def test_markers_stand_for_whiteouts_and_opaque_directories(
    hidden: list[bytes],
    opaque: list[bytes],
    has: Mapping[bytes, Kind],
    opaques: list[bytes],
    whiteouts: list[bytes],
) -> None:
    found, paths = opaques_and_whiteouts(hidden, opaque, has.get)
    assert (found, list(paths)) == (frozenset(opaques), whiteouts)


NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)


@given(st.lists(PATHS), st.lists(PATHS), st.dictionaries(PATHS, st.sampled_from(Kind)))
def test_no_whiteout_stands_where_it_hides_nothing_or_something_of_its_own_layer(
    hidden: list[bytes], opaque: list[bytes], has: dict[bytes, Kind]
) -> None:
    opaques, whiteouts = opaques_and_whiteouts(hidden, opaque, has.get)

    assert opaques == {*opaque} | {path for path in hidden if has.get(path) is DIRECTORY}
    wanted = {path for path in hidden if path not in has}
    assert [*whiteouts] == sorted(
        path for path in wanted if opaques.isdisjoint(with_ancestors(split(path)[0]))
    )


@given(st.sets(PATHS), st.sets(PATHS), st.dictionaries(PATHS, st.sampled_from(Kind)), PATHS)
def test_a_path_asked_for_alone_is_what_it_is_among_all(
    hidden: set[bytes], opaque: set[bytes], has: dict[bytes, Kind], path: bytes
) -> None:
    opaques, whiteouts = opaques_and_whiteouts(hidden, opaque, has.get)
    form = OverlayForm(hidden, opaque, has.get)

    assert form.is_opaque(path) == (path in opaques)
    assert form.has_whiteout(path) == (path in set(whiteouts))


@pytest.mark.parametrize(("owner", "name"), [("root", "trusted"), ("namespace", "user"), ("user", "user")])
def test_who_writes_decides_about_the_attribute(owner: str, name: str) -> None:
    assert opaque_xattr(owner) == f"{name}.overlay.opaque"  # type: ignore[arg-type]
    assert opaque_xattr(owner).encode() in OPAQUE_XATTRS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "rdev", "kind"),
    [
        pytest.param(0o040755, 0, DIRECTORY, id="directory"),
        pytest.param(0o100644, 0, OTHER, id="file"),
        pytest.param(0o020666, 0x103, OTHER, id="device"),
        pytest.param(0o060666, 0, OTHER, id="block device 0:0"),
        pytest.param(0o020000, 0, None, id="whiteout"),
    ],
)
def test_a_whiteout_counts_as_nothing(mode: int, rdev: int, kind: Kind | None) -> None:
    assert kind_of(mode, rdev) is kind
    assert is_whiteout(mode, rdev) == (kind is None)


@given(st.lists(st.binary(min_size=1).filter(lambda path: b"\0" not in path), min_size=1))
def test_lower_directories_survive_the_option(paths: list[bytes]) -> None:
    text = lowerdir_option(paths)

    assert text.startswith(b"lowerdir=")
    found = split_lowerdir(text.removeprefix(b"lowerdir="))
    assert [path for path in found if path in paths] == list(dict.fromkeys(paths))


def test_other_directories_escape_no_colon() -> None:
    assert directory_option(b"upperdir", rb"/a:b,c\d") == rb"upperdir=/a:b\,c\\d"


def test_fuse_overlayfs_gets_commas_escaped_and_no_colon() -> None:
    assert fuse_lowerdir_option([b"/a,b", b"/c d"]) == rb"lowerdir=/a\,b:/c d"
    with pytest.raises(UsageError, match=r"^/c:d: .*expected another --store"):
        fuse_lowerdir_option([b"/a", b"/c:d"])


@given(st.binary())
def test_a_redirect_fits_into_an_inode_and_leads_to_one_object(content: bytes) -> None:
    id_ = Digest.of(content).object_id
    redirect = object_redirect(id_)
    assert len(redirect) == 24
    assert redirect.startswith(b"/")
    assert object_of(redirect) == id_


@pytest.mark.parametrize(
    "redirect",
    [
        b"",
        b"etc/passwd",
        b"/../../etc/passwd00000000",
        b"/ab/cdefghijklmnopqrstu",
        b"/ab/" + b"c" * 20 + b"\n",
    ],
)
def test_a_redirect_that_layerfs_did_not_write_leads_nowhere(redirect: bytes) -> None:
    assert object_of(redirect) is None
