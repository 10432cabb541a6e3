"""Names for a disk without ``.wh.``: whatever an archive may have, none is lost and none meets another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.layer.escaping import escaped, unescaped

_PARTS = st.sampled_from([b".", b"wh", b"%", b"%%", b".wh.", b".%.", b"x", b"\n", b"opq"])
NAMES = st.lists(_PARTS, min_size=1, max_size=6).map(b"".join)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)


@given(PATHS)
def test_a_path_comes_back_and_begins_nowhere_like_a_marker(path: bytes) -> None:
    written = escaped(path)
    assert unescaped(written) == path
    assert not any(name.startswith(b".wh.") for name in written.split(b"/"))
    assert escaped(path).count(b"/") == path.count(b"/")


@given(PATHS)
def test_a_path_is_written_name_by_name(path: bytes) -> None:
    assert escaped(path) == b"/".join(map(escaped, path.split(b"/")))


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (b".wh.gone", b".%.gone"),
        (b".wh..wh..opq", b".%..wh..opq"),
        (b".%.mine", b".%%.mine"),
        (b".%%.mine", b".%%%.mine"),
        (b"plain/.wh.a/b.wh.c", b"plain/.%.a/b.wh.c"),
        (b".whale", b".whale"),
        (b"", b""),
    ],
)
def test_spellings(name: bytes, written: bytes) -> None:
    assert escaped(name) == written


def test_every_marker_has_room() -> None:
    assert len(escaped(b".wh." + b"x" * 251)) < 255
