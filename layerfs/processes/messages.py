"""What a helper is asked and what it answers, whatever the question is about: values on a socket.

The owner sends `Start` once, then `Ask` and `Cancel`; each `Ask` gets exactly one answer (`Answered`,
`Unanswered` or `Cancelled`), in any order, and any number of `Told` before it. `Logged` and `Counted` belong
to no question.
"""

import os
from base64 import b64decode
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from layerfs.processes import frames

T = TypeVar("T")


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first message: the settings of the helper, and the level from which on it logs."""

    settings: msgspec.Raw
    log_level: int


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A question; *files* descriptors come with this message."""

    number: int
    operation: msgspec.Raw
    files: int


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody wants that answer any more: stop, then say `Cancelled`."""

    number: int


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """The answer to a question."""

    number: int
    result: msgspec.Raw


class Told(msgspec.Struct, frozen=True, tag="told"):
    """How far the work on a question is. Not an answer: more will come."""

    number: int
    value: int


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """The work on a question was stopped, and does nothing any more."""

    number: int


class Unanswered(msgspec.Struct, frozen=True, tag="unanswered"):
    """Why a question has no answer."""

    number: int
    error: str
    """Name of a class in `layerfs.errors`."""
    message: str
    asked: tuple[str, ...] = ()
    """Its lines of who was asked."""


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """What the helper counted since it said so before; its module knows what that is."""

    counts: msgspec.Raw


class Logged(msgspec.Struct, frozen=True, tag="logged"):
    """A line for the owner's log."""

    logger: str
    level: int
    text: str


to_helper: Final = msgspec.json.Decoder(Start | Ask | Cancel)
from_helper: Final = msgspec.json.Decoder(Answered | Unanswered | Cancelled | Told | Logged | Counted)


def frame(message: msgspec.Struct) -> bytes:
    """Return *message* as it travels."""
    return frames.frame(msgspec.json.encode(message))


def packed(value: object) -> msgspec.Raw:
    """Return *value* as a part of a message. Paths travel as their bytes, whatever these are."""
    return msgspec.Raw(msgspec.json.encode(value, enc_hook=_encoded))


def unpacked(raw: msgspec.Raw, kind: type[T]) -> T:
    """Return the value that was `packed`. Raises msgspec.DecodeError for anything but a *kind*."""
    return msgspec.json.decode(raw, type=kind, dec_hook=_decoded)


def _encoded(value: object) -> bytes:
    if isinstance(value, Path):
        return os.fsencode(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


def _decoded(kind: type, value: Any) -> Path:
    if kind is Path:
        return Path(os.fsdecode(b64decode(value)))
    raise NotImplementedError(f"{kind.__name__} cannot be received")
