"""What others wrote: a printable line to people, itself to scripts."""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.cli.logs import _JournalFormatter, _JsonFormatter
from layerfs.errors import InvalidDocument
from layerfs.foreign import OneLine, decode_json, encode_json, printable, strict_json

ANY_TEXT = st.text(st.characters(codec=None))
"""With lone surrogates."""

FORGED = "x\n2026-01-01 00:00:00,000 ERROR layerfs: forged\r\x85\u2028\u2029\x0b\x1cforged \x1b]0;forged\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("alpine:3.20 \\ é 雪 😀", "alpine:3.20 \\ é 雪 😀", id="printable, as it is"),
        pytest.param("two  spaces ", "two  spaces ", id="spaces, as they are"),
        pytest.param("a\nb\r\n\tc\x0b\x0c\x1cd", "a b c d", id="lines"),
        pytest.param("a\x85b\u2028c\u2029d\xa0e", "a b c d e", id="blanks and lines of Unicode"),
        pytest.param("\x1b[31m\x07\x00\x7f", r"\x1b[31m\x07\x00\x7f", id="C0"),
        pytest.param("\x9b31m", r"\x9b31m", id="C1"),
        pytest.param("a\u202egpj.exe\u2066", r"a\u202egpj.exe\u2066", id="bidirectional"),
        pytest.param("a\u200b\ufeff\u00ad", r"a\u200b\ufeff\xad", id="not seen"),
        pytest.param("\U000e0041\ue000\u0378", r"\U000e0041\ue000\u0378", id="tags, private, unassigned"),
        pytest.param("\ud800x\udfff", r"\ud800x\udfff", id="lone surrogates"),
        pytest.param("caf\udce9", r"caf\xe9", id="a byte that is no UTF-8"),
        pytest.param("\n", "", id="nothing else"),
    ],
)
def test_a_text_is_shown_as_one_printable_line(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(ANY_TEXT, st.integers(1, 40))
def test_whatever_it_is_the_line_is_printable_short_and_stays_itself(text: str, longest: int) -> None:
    line = printable(text, longest)
    assert line.isprintable()
    assert len(line) <= longest
    assert printable(line, longest) == line
    line.encode()


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        pytest.param(rb'["\ud83d\ude00", "\\ud800"]', ["😀", r"\ud800"], id="none is alone"),
        pytest.param(rb'["\ud800", "b"]', ["�", "b"], id="a first half"),
        pytest.param(rb'["a\udc00b"]', ["a�b"], id="a second half"),
        pytest.param(rb'["\ud83d\ud83d\ude00"]', ["�😀"], id="a half before a pair"),
        pytest.param(rb'["\\\ud800\\ud800"]', [r"\�\ud800"], id="behind backslashes"),
        pytest.param(b'["\xff", "\xed\xa0\x80"]', ["�", "���"], id="no UTF-8"),
    ],
)
def test_half_a_pair_of_surrogates_costs_itself_alone(raw: bytes, read: list[str]) -> None:
    assert decode_json(raw, list[str]) == read


@given(st.lists(ANY_TEXT))
def test_json_with_any_escapes_is_read(texts: list[str]) -> None:
    found = decode_json(json.dumps(texts).encode(), list[str])
    assert found == [
        "".join("�" if "\ud800" <= char <= "\udfff" else char for char in text) for text in texts
    ]


def test_what_is_no_json_stays_an_error() -> None:
    for raw in (b'["\\ud800"', b'["\xff"', b"\xff", b'{"a": "\\ud800"}'):
        with pytest.raises(msgspec.DecodeError):
            decode_json(raw, list[str])


@given(
    st.recursive(st.none() | st.integers() | ANY_TEXT, lambda x: st.lists(x) | st.dictionaries(ANY_TEXT, x))
)
def test_json_is_exact_and_printable(value: object) -> None:
    text = encode_json(value)
    assert json.loads(text) == value
    assert all(line.isprintable() for line in text.split("\n"))
    text.encode()


@given(ANY_TEXT)
def test_an_error_is_one_printable_line(text: str) -> None:
    assert str(InvalidDocument(text)).isprintable()


def _record(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        return logging.LogRecord("layerfs", logging.ERROR, __file__, 1, "%s: broken", (text,), sys.exc_info())


@pytest.mark.parametrize(
    "formatter",
    [OneLine("%(name)s: %(message)s"), _JournalFormatter(), _JsonFormatter()],
    ids=lambda x: type(x).__name__,
)
@given(text=ANY_TEXT)
def test_log_lines_forged(formatter: logging.Formatter, text: str) -> None:
    for written in (text, FORGED):
        line = formatter.format(_record(written))
        assert line.isprintable()
        assert "ValueError" in line


@pytest.mark.parametrize("read", [decode_json, strict_json])
@pytest.mark.parametrize("raw", [b"[" * 100_000, b"[" * 100_000 + b"\xff", b"\xff", b""], ids=len)
def test_json_that_cannot_be_read_is_one_error(read: Callable[[bytes, Any], object], raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(raw, Any)
