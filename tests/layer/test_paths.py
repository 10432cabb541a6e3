"""Names of members to paths below the root."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import BudgetExceeded, InvalidArchive, InvalidLayer, PathEscape
from layerfs.layer.paths import clean, is_plain, shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a", b"a"), (b"a/b", b"a/b"), (b"./a", b"a"), (b"/a", b"a"), (b"///a//b/", b"a/b"),
        (b"a/./b", b"a/b"),
        (b".", b""), (b"./", b""), (b"/", b""), (b"...", b"..."), (b"..a/b..", b"..a/b.."),
        (b"\xff\xfe\n", b"\xff\xfe\n"), (b"a" * 255, b"a" * 255),
    ],
)  # fmt: skip
def test_names_that_the_field_accepts_become_relative_paths(name: bytes, expected: bytes) -> None:
    assert clean(name, 10) == expected


@pytest.mark.parametrize(
    "name", [b"..", b"../a", b"a/..", b"a/../b", b"/..", b"./..", b"a/b/../../../c", b"../"]
)
def test_two_dots_are_an_escape_wherever_they_stand(name: bytes) -> None:
    with pytest.raises(PathEscape):
        clean(name, 10)


@pytest.mark.parametrize("name", [b"", b"a\0b", b"a" * 256])
def test_names_that_no_file_can_have_are_refused(name: bytes) -> None:
    with pytest.raises(InvalidArchive):
        clean(name, 10)


def test_depth_has_a_budget_that_the_error_names() -> None:
    assert clean(b"/".join([b"d"] * 10), 10).count(b"/") == 9
    with pytest.raises(BudgetExceeded, match="max_depth"):
        clean(b"/".join([b"d"] * 11), 10)


@given(name=st.lists(st.sampled_from([b"/", b".", b"..", b"a", b"b.", b"\0"])).map(b"".join))
def test_a_clean_path_never_leads_out_and_cleaning_it_again_changes_nothing(name: bytes) -> None:
    try:
        path = clean(name, 100)
    except InvalidLayer:
        return
    assert not path.startswith(b"/")
    assert not {b"", b".", b".."}.intersection(path.split(b"/") if path else [])
    assert not path or clean(path, 100) == path


def test_long_names_are_shown_shortened() -> None:
    assert len(shown(b"x" * 5000)) < 300
    assert shown(b"") == "(root)"


@pytest.mark.parametrize(
    ("leaf", "plain"),
    [
        (b"a", True), (b"a" * 255, True), (b"\xff", True), (b"", False), (b"a" * 256, False), (b".", False),
        (b"..", False), (b".wh.a", False), (b"a\0", False),
    ],
)  # fmt: skip
def test_a_plain_name_needs_no_look(leaf: bytes, plain: bool) -> None:
    assert is_plain(leaf) is plain
