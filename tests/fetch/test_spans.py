"""Which bytes are asked for: compared with sets of single bytes."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from layerfs.fetch import spans
from layerfs.fetch.spans import GAP_MAX, WORTH, Readahead, Span, ahead, merged, missing, requests

SPANS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 30)).map(lambda pair: Span(pair[0], sum(pair))), max_size=8
)


def bytes_of(some: Iterable[Span]) -> set[int]:
    return {byte for span in some for byte in range(span.start, span.end)}


@given(SPANS, st.integers(0, 9))
def test_merged_loses_nothing_and_adds_small_gaps_only(some: list[Span], gap: int) -> None:
    found = merged(some, gap)
    assert bytes_of(found) >= bytes_of(some)
    assert all(later.start - one.end > gap for one, later in pairwise(found))
    if not gap:
        assert bytes_of(found) == bytes_of(some)


@given(SPANS, SPANS)
def test_missing_is_the_difference(wanted: list[Span], here: list[Span]) -> None:
    assert bytes_of(missing(wanted, here)) == bytes_of(wanted) - bytes_of(here)


@given(SPANS, SPANS, st.integers(1, 40))
def test_requests_bring_all_that_is_missing(wanted: list[Span], here: list[Span], most: int) -> None:
    asked = requests(wanted, here, most)
    assert bytes_of(asked) >= bytes_of(wanted) - bytes_of(here)
    assert all(span.size <= most for span in asked)
    assert len(bytes_of(asked)) == sum(span.size for span in asked), "no byte is asked for twice"


def test_a_small_gap_costs_less_than_a_request() -> None:
    far = 10 * GAP_MAX
    assert requests([Span(0, 10), Span(10 + GAP_MAX, far)], [], 1 << 30) == [Span(0, far)]
    assert requests([Span(0, 10), Span(11 + GAP_MAX, far)], [], 1 << 30) == [
        Span(0, 10),
        Span(11 + GAP_MAX, far),
    ]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=6), st.integers(1, 12))
def test_a_download_takes_what_is_here_and_asks_for_the_rest(
    pairs: list[tuple[int, int]], length: int
) -> None:
    size = length * WORTH
    here = [Span(start * WORTH, min((start + count) * WORTH, size)) for start, count in pairs]
    here = [span for span in here if span.size > 0]
    offset, fetched, taken = 0, set(), set()
    while offset < size:
        ready, end = ahead(offset, size, here)
        if ready is not None:
            taken.add((ready.start, ready.end))
            assert ready.start == offset
            offset = ready.end
        else:
            fetched.add((offset, end))
            assert end > offset
            offset = end
    unit = WORTH
    assert bytes_of(Span(a // unit, b // unit) for a, b in fetched) == set(range(length)) - bytes_of(
        Span(span.start // unit, span.end // unit) for span in here
    )


def test_what_is_too_short_is_passed_over() -> None:
    assert ahead(0, 5 * WORTH, [Span(100, 200)]) == (None, 5 * WORTH)
    assert ahead(100, 5 * WORTH, [Span(100, 200)]) == (None, 5 * WORTH)
    assert spans.ahead(50, 5 * WORTH, [Span(0, WORTH)]) == (Span(50, WORTH), 5 * WORTH)


def test_who_reads_on_is_read_ahead_for_twice_as_far_each_time() -> None:
    reading, size = Readahead(), 1 << 30
    assert reading.extended(Span(0, 10), size) == Span(0, 10), "one file says nothing"
    at, asked = 10, 0
    while at < 100 << 20:
        span = reading.extended(Span(at, at + 1000), size)
        assert span.start == at
        assert 1000 < span.size <= 1000 + Readahead.MOST
        at, asked = span.end, asked + 1
    assert asked < 25
    assert reading.extended(Span(5, 6), size) == Span(5, 6), "back at the front"
    assert reading.extended(Span(size - 10, size - 5), size) == Span(size - 10, size - 5)
    assert reading.extended(Span(size - 5, size - 1), size) == Span(size - 5, size)
