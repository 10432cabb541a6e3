"""Covers of stacks that list very much, made by a process of their own: ``python -m layerfs.store.covering``.

The plan of a cover has each marker of the stack in several sets. In the process that serves a mount their
memory would stay, and others would wait for their sorting.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import LayerfsError, name_of, named
from layerfs.layer.escaping import escaped, unchanged
from layerfs.processes.once import answer_once, ask_once
from layerfs.store.covers import build_cover
from layerfs.store.layout import RECORD_SUFFIX
from layerfs.store.owner import Capabilities
from layerfs.store.records import Merger, read_tables

_HERE_MAX: Final = 256 << 10
"""Bytes of tables up to which a cover takes less time than the start of a process."""


class _Question(msgspec.Struct, frozen=True):
    target: str
    trees: tuple[str, ...]
    """Layer directories, base first; their records lie beside them."""
    native: bool
    escaped: bool
    merger: Merger


class _Answer(msgspec.Struct, frozen=True):
    problem: str = ""
    error: str = ""
    """Name of a class in `layerfs.errors`, if it is one of those."""
    errno: int | None = None


def make_cover(
    target: Path, trees: Sequence[Path], table_bytes: int, *, form: Capabilities, merger: Merger
) -> None:
    """Write the cover of *trees* as `build_cover` does; their tables have *table_bytes* in all.

    Raises OSError, NotInStore, StoreError, StoreUnfit, WorkerDied.
    """
    question = _Question(
        str(target), tuple(map(str, trees)), form.whiteout_devices, not form.marker_names, merger
    )
    if table_bytes <= _HERE_MAX:
        _build(question)
        return
    raw = ask_once("layerfs.store.covering", msgspec.json.encode(question))
    answer = msgspec.json.decode(raw, type=_Answer)
    if answer.errno is not None:
        raise OSError(answer.errno, answer.problem)
    if answer.error:
        raise named(answer.error, answer.problem)


def _build(question: _Question) -> None:
    trees = [Path(tree) for tree in question.trees]
    tables = [read_tables(tree.with_name(tree.name + RECORD_SUFFIX)) for tree in trees]
    build_cover(
        Path(question.target),
        tables,
        trees,
        native=question.native,
        spelled=escaped if question.escaped else unchanged,
        merger=question.merger,
    )


def _answer(raw: bytes) -> bytes:
    try:
        _build(msgspec.json.decode(raw, type=_Question))
    except LayerfsError as exc:
        return msgspec.json.encode(_Answer(str(exc), name_of(exc)))
    except OSError as exc:
        return msgspec.json.encode(_Answer(exc.strerror or str(exc), errno=exc.errno))
    return msgspec.json.encode(_Answer())


if __name__ == "__main__":
    answer_once(_answer)
