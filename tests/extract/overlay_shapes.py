"""Layers with markers, and what they stand for in overlay form: the whiteouts, and the opaque directories."""

import pytest

from tests.support.images import directory, file, opaque, symlink, whiteout

SHAPES = [
    pytest.param([whiteout("d/x")], {"d/x"}, set(), id="a whiteout"),
    pytest.param([whiteout("x"), file("x")], set(), set(), id="a whiteout and a file"),
    pytest.param([whiteout("x"), symlink("x", "y")], set(), set(), id="a whiteout and a symlink"),
    pytest.param([whiteout("x"), directory("x")], set(), {"x"}, id="a whiteout and a directory"),
    pytest.param([whiteout("x"), file("x/f")], set(), {"x"}, id="a whiteout and an implied directory"),
    pytest.param([opaque("d")], set(), {"d"}, id="an opaque directory"),
    pytest.param([opaque("")], set(), {"."}, id="an opaque root"),
    pytest.param([opaque("d"), whiteout("d/x")], set(), {"d"}, id="a whiteout in an opaque directory"),
    pytest.param([opaque("d"), whiteout("d/e/x")], set(), {"d"}, id="a whiteout below an opaque directory"),
    pytest.param(
        [whiteout("d"), whiteout("d/x"), file("d/f")], set(), {"d"}, id="a whiteout below a hidden directory"
    ),
    pytest.param([whiteout("d/x"), whiteout("e/x")], {"d/x", "e/x"}, set(), id="two directories"),
    pytest.param([file(".wh..wh.plnk"), file(".wh..wh.orph/x")], set(), set(), id="AUFS's own names"),
    pytest.param([whiteout("d/.x"), file("d/.y")], {"d/.x"}, set(), id="a hidden dot file"),
]
