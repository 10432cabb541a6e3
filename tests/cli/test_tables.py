"""What of a table goes where it does not fit, without a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.cli import terminal
from layerfs.cli.tables import fitted
from layerfs.cli.terminal import cut, draws_unicode, squeeze, width_of, wrapped

HEADER = ("REFERENCE", "SIZE", "CREATED")
ROWS = [("registry.example.org/a/b:1.1", "40.0 MB", "2026-11-01"), ("b:2", "7 B", "-")]


def test_without_a_width_nothing_is_left_out() -> None:
    assert fitted(HEADER, ROWS, None, ["SIZE"]) == [
        "REFERENCE                     SIZE     CREATED",
        "registry.example.org/a/b:1.1  40.0 MB  2026-11-01",
        "b:2                           7 B      -",
    ]


@pytest.mark.parametrize(
    ("unicode", "name"), [(True, "registr….org/a/b:1.1"), (False, "regist...org/a/b:1.1")]
)
def test_columns_go_before_the_first_is_shortened(
    monkeypatch: pytest.MonkeyPatch, unicode: bool, name: str
) -> None:
    monkeypatch.setattr(terminal, "draws_unicode", lambda: unicode)
    spare = ["CREATED", "SIZE"]
    assert fitted(HEADER, ROWS, 40, spare)[1] == "registry.example.org/a/b:1.1  40.0 MB"
    assert fitted(HEADER, ROWS, 29, spare[:1])[1] == f"{name}  40.0 MB"


@given(
    names=st.lists(st.text(st.characters(categories=["L", "N", "P", "M"]), max_size=60), min_size=1),
    width=st.integers(30, 120),
)
def test_no_line_is_longer_than_the_terminal_is_wide(names: list[str], width: int) -> None:
    rows = [(name, "12.0 MB", "2026-11-01") for name in names]
    assert all(width_of(line) <= width for line in fitted(HEADER, rows, width, ["CREATED"]))


@given(text=st.text(st.characters(categories=["L", "N", "P", "M"])), width=st.integers(8, 90))
def test_what_is_shortened_keeps_its_beginning_or_both_ends(text: str, width: int) -> None:
    mark = "…" if draws_unicode() else "..."
    assert max(width_of(cut(text, width)), width_of(squeeze(text, width))) <= width
    if width_of(text) <= width:
        assert cut(text, width) == squeeze(text, width) == text
    else:
        assert text.startswith(cut(text, width).removesuffix(mark))
        places = range(len(squeeze(text, width)))
        halves = [(squeeze(text, width)[:at], squeeze(text, width)[at + len(mark) :]) for at in places]
        assert any(text.startswith(begin) and text.endswith(end) for begin, end in halves)


def test_wide_characters_have_two_columns_and_accents_none() -> None:
    assert [width_of(text) for text in ("ab", "\u6f22", "e\u0301", "")] == [2, 2, 1, 0]


def test_a_word_is_never_broken() -> None:
    assert wrapped("see --insecure-registry and more", 16, "  ", "    ") == [
        "  see",
        "    --insecure-registry",
        "    and more",
    ]
