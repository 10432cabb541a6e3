"""When two looks at a directory are looks at the same one."""

import pytest

from layerfs.layer.record import Identity


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param((1, 5), (1, 5), True, id="all is equal"),
        pytest.param((1, 5), (2, 5), True, id="numbered anew by overlayfs"),
        pytest.param((1, 5), (1, 6), False, id="a number that was given again"),
        pytest.param((1, 0), (1, 6), True, id="one does not know its birth"),
        pytest.param((1, 0), (2, 0), False, id="none does"),
    ],
)
def test_the_time_of_birth_decides_where_both_know_it(
    one: tuple[int, int], other: tuple[int, int], same: bool
) -> None:
    assert Identity(*one).is_that_of(Identity(*other)) is same
    assert Identity(*other).is_that_of(Identity(*one)) is same
