"""What names of markers mean (image-spec layer.md, "Whiteouts")."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidWhiteout
from layerfs.layer.whiteout import OPAQUE_MARKER, Marker, Opaque, Reserved, Whiteout, is_marker, parse_marker

_components = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        pytest.param(b"file", None, id="an ordinary name"),
        pytest.param(b".wh", None, id="shorter than the prefix"),
        pytest.param(b".whx", None, id="no dot behind wh"),
        pytest.param(b"x.wh.y", None, id="the prefix further in"),
        pytest.param(b".WH.file", None, id="another case"),
        pytest.param(b".wh.file", Whiteout(b"file"), id="a whiteout"),
        pytest.param(b".wh. ", Whiteout(b" "), id="of a blank"),
        pytest.param(b".wh.\xff\n", Whiteout(b"\xff\n"), id="of odd bytes"),
        pytest.param(b".wh....", Whiteout(b"..."), id="of three dots, a name like others"),
        pytest.param(b".wh..hidden", Whiteout(b".hidden"), id="of a dot file"),
        pytest.param(b".wh..wh", Whiteout(b".wh"), id="of .wh, which is no marker"),
        pytest.param(b".wh..wh..opq", Opaque(), id="the opaque marker"),
        pytest.param(b".wh..wh..opq2", Reserved(), id="nearly the opaque marker"),
        pytest.param(b".wh..wh.", Reserved(), id="the prefix twice"),
        pytest.param(b".wh..wh.file", Reserved(), id="of a marker, which no layer below can hold"),
        pytest.param(b".wh..wh.plnk", Reserved(), id="hard links of AUFS"),
        pytest.param(b".wh..wh.aufs", Reserved(), id="bookkeeping of AUFS"),
    ],
)
def test_a_name_stands_for(name: bytes, meaning: Marker | None) -> None:
    assert parse_marker(name) == meaning


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh..."])
def test_a_marker_that_hides_nothing_or_the_directory_itself_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidWhiteout, match=r"\.wh\."):
        parse_marker(name)


@given(name=_components.filter(lambda name: not name.startswith(b".wh.") and name not in (b".", b"..")))
def test_each_name_that_can_exist_can_be_hidden(name: bytes) -> None:
    assert parse_marker(b".wh." + name) == Whiteout(name)


@given(name=_components)
def test_what_a_whiteout_hides_is_never_a_marker(name: bytes) -> None:
    try:
        marker = parse_marker(name)
    except InvalidWhiteout:
        return
    assert is_marker(name) == (marker is not None)
    if isinstance(marker, Whiteout):
        assert not is_marker(marker.hidden)
        assert name != OPAQUE_MARKER
