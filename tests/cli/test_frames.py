"""What a pull draws, for terminals of any size, from values alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.cli.frames import LayerState, Speed, frame, totals
from layerfs.oci import Descriptor
from layerfs.oci.image import ImageLayer
from layerfs.status import Phase
from tests.support.images import file, layer

_BUILT = [layer(file(str(number)), compression="none") for number in range(41)]
MB = 1_000_000


def state(
    number: int, phase: Phase, received: int = 0, size: int = 40 * MB, speed: float | None = None
) -> LayerState:
    digest = _BUILT[number].digest
    found = ImageLayer(number, Descriptor(_BUILT[number].media_type("oci"), digest, size), digest)
    return LayerState(found, phase, received, speed)


MANY = [
    *(state(number, "done") for number in range(12)),
    state(12, "extracting", 40 * MB),
    state(13, "queued", 40 * MB),
    state(14, "downloading", 12 * MB, speed=3.2e6),
    state(15, "downloading", 251, 300),
    *(state(number, "queued") for number in range(16, 41)),
]


def shown(columns: int, lines: int, *, unicode: bool = True) -> list[str]:
    names = {one.digest.shown: "sha256:0123456789ab" for one in _BUILT}
    found = frame(MANY, 8.1e6, columns, lines, unicode=unicode)
    for digest, name in names.items():
        found = [line.replace(digest, name) for line in found]
    return found


def test_what_works_is_on_top_and_what_is_done_is_gone() -> None:
    assert shown(80, 24) == [
        "12 of 41 layers, 26 waiting  ━━━━━━─────────────  572.0 MB of 1.6 GB  8.1 MB/s",
        "12 sha256:0123456789ab  ━━━━━━━━━  40.0 MB of 40.0 MB           -  extracting",
        "14 sha256:0123456789ab  ━━───────  12.0 MB of 40.0 MB    3.2 MB/s  downloading",
        "15 sha256:0123456789ab  ━━━━━━━──      251 B of 300 B           -  downloading",
        "13 sha256:0123456789ab  ━━━━━━━━━  40.0 MB of 40.0 MB           -  waiting",
    ]
    assert shown(80, 24, unicode=False)[2] == (
        "14 sha256:0123456789ab  ##.......  12.0 MB of 40.0 MB    3.2 MB/s  downloading"
    )


def test_a_narrow_terminal_shows_one_line_a_layer() -> None:
    assert shown(40, 24) == [
        "12 of 41 layers  572.0 MB of 1.6 GB",
        "12  40.0 MB of 40.0 MB  extracting",
        "14  12.0 MB of 40.0 MB  downloading",
        "15      251 B of 300 B  downloading",
        "13  40.0 MB of 40.0 MB  waiting",
    ]


def test_a_terminal_of_24_lines_shows_that_there_is_more() -> None:
    busy = [state(number, "downloading", number) for number in range(41)]
    found = frame(busy, None, 80, 24, unicode=True)
    assert len(found) == 23  # and one for the cursor
    assert found[-1] == "and 20 more"
    assert found[-2].startswith("20 ")


@given(
    columns=st.integers(20, 200),
    lines=st.integers(2, 50),
    states=st.lists(
        st.builds(
            state,
            st.integers(0, 40),
            st.sampled_from(["queued", "downloading", "extracting", "verifying", "done"]),
            st.integers(0, 1 << 40),
            st.integers(1 << 40, 1 << 41),
            st.none() | st.floats(0, 1e12),
        ),
        min_size=1,
        max_size=50,
    ),
    unicode=st.booleans(),
)
def test_it_always_fits(columns: int, lines: int, states: list[LayerState], unicode: bool) -> None:
    found = frame(states, None, columns, lines, unicode=unicode)
    assert len(found) < max(lines, 3)
    assert max(map(len, found)) <= columns - 2  # the terminal's ^C has room
    assert unicode or "".join(found).isascii()


@pytest.mark.parametrize(("samples", "speed"), [
    ([(0, 0)], None),
    ([(0, 100), (0.1, 200)], None),
    ([(0, 0), (1, 1000)], 1000),
    ([(0, 0), (1, 1000), (2, 2000), (10, 2000), (14, 2000)], 0),
    ([(0, 5000), (1, 10), (2, 1010)], 1000),
])  # fmt: skip
def test_a_speed_is_that_of_the_last_seconds(samples: list[tuple[float, int]], speed: float | None) -> None:
    measured = Speed()
    assert [measured.measured(*sample) for sample in samples][-1] == speed


def test_a_log_gets_the_totals() -> None:
    assert totals(MANY, None) == "12 of 41 layers, 26 waiting, 572.0 MB of 1.6 GB, -"
