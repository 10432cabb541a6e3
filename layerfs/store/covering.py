"""Covers of stacks that list very much, made by a process of their own: ``python -m layerfs.store.covering``.

The plan of a cover has each marker of the stack in several sets. In the process that serves a mount their
memory would stay, and others would wait for their sorting.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import LayerfsError, StoreError
from layerfs.processes.once import answer_once, ask_once
from layerfs.store.covers import build_cover
from layerfs.store.layout import RECORD_SUFFIX
from layerfs.store.records import Merger, read_tables

_HERE_MAX: Final = 256 << 10
"""Bytes of tables up to which a cover takes less time than the start of a process."""


class _Question(msgspec.Struct, frozen=True):
    target: str
    trees: tuple[str, ...]
    """Layer directories, base first; their records lie beside them."""
    native: bool
    merger: Merger


class _Answer(msgspec.Struct, frozen=True):
    problem: str = ""
    errno: int | None = None


def make_cover(
    target: Path, trees: Sequence[Path], table_bytes: int, *, native: bool, merger: Merger
) -> None:
    """Write the cover of *trees* as `build_cover` does; their tables have *table_bytes* in all.

    Raises OSError, NotInStore, StoreError, WorkerDied.
    """
    question = _Question(str(target), tuple(map(str, trees)), native, merger)
    if table_bytes <= _HERE_MAX:
        _build(question)
        return
    raw = ask_once("layerfs.store.covering", msgspec.json.encode(question))
    answer = msgspec.json.decode(raw, type=_Answer)
    if answer.errno is not None:
        raise OSError(answer.errno, answer.problem)
    if answer.problem:
        raise StoreError(answer.problem)


def _build(question: _Question) -> None:
    trees = [Path(tree) for tree in question.trees]
    tables = [read_tables(tree.with_name(tree.name + RECORD_SUFFIX)) for tree in trees]
    build_cover(Path(question.target), tables, trees, native=question.native, merger=question.merger)


def _answer(raw: bytes) -> bytes:
    try:
        _build(msgspec.json.decode(raw, type=_Question))
    except LayerfsError as exc:
        return msgspec.json.encode(_Answer(str(exc)))
    except OSError as exc:
        return msgspec.json.encode(_Answer(exc.strerror or str(exc), exc.errno))
    return msgspec.json.encode(_Answer())


if __name__ == "__main__":
    answer_once(_answer)
