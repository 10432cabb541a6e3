"""What a verb does is one line of a program: the table of docs/embedding.md, run beside the command line."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layerfs
from layerfs.catalog.verification import Report
from layerfs.gc.jobs import Outcome, Survey
from tests.overlay.scene import command

_ROOT = Path(__file__).parents[2]
_ROWS = dict(
    re.findall(
        r"^\| `layerfs (.*?)` \| `(.*?)` \|$",
        (_ROOT / "docs/embedding.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


def _images(said: str, made: list[Any]) -> None:
    rows = [(row["reference"], row["digest"]) for row in json.loads(said)]
    assert rows == [(str(one.reference), str(one.digest)) for one in made]
    assert rows


def _usage(said: str, made: Survey) -> None:
    found, told = made.inventory, json.loads(said)
    assert told["total"]["count"] == len(found.things)
    assert told["total"]["size"] - told["other"]["size"] == sum(one.size for one in found.things.values())
    assert {row["reference"] for row in told["images"]} == set(map(str, found.images))


def _collected(said: str, made: Outcome) -> None:
    told = json.loads(said)
    kept = {(one.what.kind, str(one.what.digest)) for one in made.kept}
    assert {(row["kind"], row["digest"]) for row in told["kept"]} == kept
    assert (told["freed"], told["removed"], made.removed) == (0, [], {})


def _verified(said: str, made: Report) -> None:
    assert json.loads(said)["right"] == len([one for one in made.findings if one.checked.verdict == "right"])
    assert made.findings


def _inspected(said: str, made: list[str]) -> None:
    assert [layer["digest"] for layer in json.loads(said)["layers"]] == made


def _said(said: str, made: str) -> None:
    assert said == f"{made}\n"


_COMPARED: dict[str, Callable[[str, Any], None]] = {
    "images --json": _images,
    "df --json": _usage,
    "gc --dry-run --json": _collected,
    "verify --all --json": _verified,
    "inspect REFERENCE": _inspected,
    "lowerdir REFERENCE": _said,
    "export REFERENCE -o FILE": lambda _, made: None,
    "pull --quiet REFERENCE": _said,
}


def test_the_table_has_the_rows_that_are_compared() -> None:
    assert _ROWS.keys() == _COMPARED.keys()


@pytest.mark.needs_root
@pytest.mark.parametrize("row", _COMPARED)
def test_a_verb_and_its_line_say_the_same(row: str, pulled: tuple[Path, str], tmp_path: Path) -> None:
    path, reference = pulled
    stream = io.BytesIO()
    words = row.replace("REFERENCE", reference).replace("FILE", str(tmp_path / "root.tar")).split()

    said = command(*words, "--store", path).stdout
    with layerfs.Store.open(path) as store:
        made = eval(_ROWS[row], {"store": store, "reference": reference, "stream": stream, "str": str})

    _COMPARED[row](said, made)
    if "export" in row:
        assert stream.getvalue() == (tmp_path / "root.tar").read_bytes() != b""
