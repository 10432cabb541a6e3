"""What others wrote, images, registries, other users and the kernel: read leniently, shown without harm.

The one place that says which characters may be shown. A value that is shown is made `printable` where it is
parsed; errors, logs and what verbs print pass through here once more, in case somebody forgot.
"""

import logging
import re
from typing import Any, Final, TypeVar

import msgspec

LINE: Final = 300
"""Characters of one text in an error or a log, if it can be cut: a line or two."""
NAME: Final = 512
"""Characters of a name or a type; the longest reference has fewer."""

_BLANKS: Final = r"\s+"
_BYTES: Final = range(0xDC80, 0xDD00)
"""What `os.fsdecode` makes of bytes that are no UTF-8 (PEP 383)."""
_ESCAPES: Final = rb"(?i)\\u(?:d[89ab][0-9a-f]{2}\\u(d)[c-f][0-9a-f]{2}|(d)[89a-f][0-9a-f]{2})|\\."
"""Escapes of JSON; the first group marks a pair of surrogates, the second one that is alone."""

T = TypeVar("T")


def printable(text: str, longest: int = 0) -> str:
    r"""Return *text* as a line of printable characters, cut to *longest* unless that is 0.

    Blanks of every kind become spaces, everything else that is not printed becomes an escape: controls, what
    turns the direction of the text or is not seen, lone surrogates (``\x1b``, ``\u202e``, ``\udc00``).
    """
    if longest and len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    text = re.sub(_BLANKS, " ", text).strip()
    line = "".join(char if char.isprintable() else _escaped(char) for char in text)
    return printable(line, longest)


def _escaped(char: str) -> str:
    if ord(char) in _BYTES:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def strict_json(raw: bytes, type_: type[T]) -> T:
    """Read JSON. Raises msgspec.DecodeError, also for what is no UTF-8 or nested too deeply."""
    try:
        return msgspec.json.decode(raw, type=type_)
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc


def decode_json(raw: bytes, type_: type[T]) -> T:
    """Read JSON; what is no Unicode in it becomes U+FFFD, as Go (encoding/json) reads it.

    Raises msgspec.DecodeError.
    """
    try:
        return strict_json(raw, type_)
    except msgspec.DecodeError:
        mended = re.sub(_ESCAPES, lambda found: rb"\ufffd" if found[2] else found[0], raw)
        mended = mended.decode("utf-8", "replace").encode()
        if mended == raw:
            raise
    return strict_json(mended, type_)


def encode_json(value: Any) -> str:
    """Return *value* as indented JSON, exactly, with escapes for what is not printed."""
    import json

    return escape_json(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))


def escape_json(text: str) -> str:
    """Return JSON *text* in its lines, with escapes for what is not printed: it means the same."""
    return "\n".join(line if line.isprintable() else _escaped_json(line) for line in text.split("\n"))


def _escaped_json(line: str) -> str:
    import json

    return "".join(char if char.isprintable() or char == "\t" else json.dumps(char)[1:-1] for char in line)


class OneLine(logging.Formatter):
    """One event, one printable line, tracebacks included, whatever was logged."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        lines = map(printable, super().format(record).splitlines())
        return " | ".join(line.strip() for line in lines if line)
