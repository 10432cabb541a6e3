"""What a verb does is one line of a program: the table of docs/embedding.md, run beside the command line."""

import io
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import layerfs
from layerfs.catalog.verification import Report
from layerfs.gc.jobs import Outcome
from layerfs.gc.listing import StoredImage
from layerfs.gc.survey import Total
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.leases import Lease
from tests.overlay.scene import command

_ROOT = Path(__file__).parents[2]
_ROWS = dict(
    re.findall(
        r"^\| `layerfs (.*?)` \| `(.*?)` \|$",
        (_ROOT / "docs/embedding.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


def _images(said: str, made: list[StoredImage]) -> None:
    (row,) = json.loads(said)
    (one,) = made
    content = one.content
    assert content is not None
    named = {"reference": str(one.reference), "digest": str(one.digest), "in_use": list(content.in_use)}
    about = {"platform": str(content.platform), "manifest": str(content.manifest), "created": content.created}
    numbers = {name: getattr(content, name) for name in ("layers", "size", "fetched", "lazy")}
    row["resolved"] = datetime.fromisoformat(row["resolved"])
    assert row == named | about | numbers | {"resolved": one.resolved_at}
    assert content.fetched == 2


def _usage(said: str, made: dict[str, Total]) -> None:
    told = json.loads(said)
    assert {name: told[name] for name in made} == {
        name: msgspec.structs.asdict(total) for name, total in made.items()
    }
    assert told["total"]["size"] == sum(total.size for total in made.values()) / 2 > 0


def _collected(said: str, made: Outcome) -> None:
    told = json.loads(said)
    kept = [(str(one.what.kind), str(one.what.digest), list(one.reasons)) for one in made.kept]
    assert [(row["kind"], row["digest"], row["for"]) for row in told["kept"]] == kept != []
    assert (told["freed"], told["removed"], made.removed) == (0, [], {})


def _removed(said: str, made: Outcome) -> None:
    told = json.loads(said)
    removed = [(what.kind, str(what.digest), held.size) for what, held in made.removed.items()]
    assert [(row["kind"], row["digest"], row["size"]) for row in told["removed"]] == removed != []
    assert told["freed"] == made.freed > 0


def _leases(said: str, made: Mapping[str, Lease]) -> None:
    assert [(row["name"], row["digests"]) for row in json.loads(said)] == [
        (name, list(lease.digests)) for name, lease in made.items()
    ]
    assert "kept" in made


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
    "rm --dry-run --json REFERENCE": _removed,
    "lease ls --json": _leases,
}


def test_the_table_has_the_rows_that_are_compared() -> None:
    assert _ROWS.keys() == _COMPARED.keys()


@pytest.mark.needs_root
@pytest.mark.parametrize("row", _COMPARED)
def test_a_verb_and_its_line_say_the_same(row: str, pulled: tuple[Path, str], tmp_path: Path) -> None:
    path, reference = pulled
    stream = io.BytesIO()
    words = row.replace("REFERENCE", reference).replace("FILE", str(tmp_path / "root.tar")).split()

    with ImageStorage(path).lease("kept", [Digest.of(b"nobody's")]), layerfs.Store.open(path) as store:
        said = command(*words, "--store", path).stdout
        made = eval(_ROWS[row], {"store": store, "reference": reference, "stream": stream, "str": str})

    _COMPARED[row](said, made)
    if "export" in row:
        assert stream.getvalue() == (tmp_path / "root.tar").read_bytes() != b""
