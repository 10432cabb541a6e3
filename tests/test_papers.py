"""What comments, docstrings and documents cite exists: paths, tests, links."""

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.test_architecture import ARROWS

_ROOT = Path(__file__).parents[1]
_DOCUMENTS = sorted([*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md")])
_SOURCES = [path for part in ("layerfs", "tests", "scripts") for path in sorted((_ROOT / part).rglob("*.py"))]

_CITED = re.compile(
    r"(?<![\w/.<>~*-])((?:docs|tests|scripts|layerfs)/(?!it\b)[\w./-]*\w(?:::\w+)?|[\w-]+\.md|facts/[\w.-]+)\b"
)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
_CONFLICT = re.compile(r"^(?:<{7}|>{7}|\|{7})(?: |$)", re.MULTILINE)
_ARROW = re.compile(r"^(\w+) +-> +(.+)$", re.MULTILINE)
_SPECIFICATION = frozenset(
    {
        "config.md",
        "considerations.md",
        "conversion.md",
        "descriptor.md",
        "image-index.md",
        "image-layout.md",
        "layer.md",
        "manifest.md",
        "media-types.md",
    }
)
"""Documents of the image specification that comments name with their section."""


def _prose(path: Path) -> Iterator[str]:
    """Yield the comments and docstrings of a source."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.string
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


@cache
def functions_of(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def missing(text: str) -> set[str]:
    """Return what *text* cites of this project that is not there."""
    found = set()
    for cited in _CITED.findall(text):
        name, _, test = cited.partition("::")
        if name in _SPECIFICATION:
            continue
        places = [_ROOT / name, _ROOT / "docs" / name, _ROOT / f"{name}.py"]
        place = next((place for place in places if place.exists()), None)
        if place is None or (test and test not in functions_of(place)):
            found.add(cited)
    return found


def test_what_comments_cite_exists() -> None:
    found = {
        (str(path.relative_to(_ROOT)), cited)
        for path in _SOURCES
        for text in _prose(path)
        for cited in missing(text)
    }

    assert found == set()


@pytest.mark.parametrize("path", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_what_documents_cite_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name != "CHANGELOG.md":  # which tells of what was
        assert missing(text) == set()
    assert [link for link in _LINK.findall(text) if not (path.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see nothing.md, section 5", {"nothing.md"}),
        ("docs/testing.md and testing.md", set()),
        ("`tests/test_papers.py::test_what_comments_cite_exists`", set()),
        ("`tests/test_papers.py::test_of_nothing`", {"tests/test_papers.py::test_of_nothing"}),
        ("scripts/nothing", {"scripts/nothing"}),
        ("image-spec, config.md", set()),
    ],
)
def test_a_citation_of_what_is_not_there_is_found(text: str, expected: set[str]) -> None:
    assert missing(text) == expected


def test_every_document_is_in_the_index() -> None:
    index = (_ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {(_ROOT / "docs" / link).resolve() for link in _LINK.findall(index)}
    indexed = {path if path.parent.name != "decisions" else path.parent for path in _DOCUMENTS}

    assert indexed - linked - {_ROOT / "docs" / "README.md"} == set()


@pytest.mark.parametrize("path", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_a_document_was_merged_to_its_end(path: Path) -> None:
    assert _CONFLICT.findall(path.read_text(encoding="utf-8")) == []


def test_the_arrows_of_the_architecture_are_those_that_are_enforced() -> None:
    text = (_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    said = {room: set(targets.split()) - {"nothing"} for room, targets in _ARROW.findall(text)}

    assert said == ARROWS


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_has_a_row_in_the_architecture(room: str) -> None:
    text = (_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))

    assert room == "__main__" or f"`{room}`" in rows


def test_a_threat_names_functions_that_show_it() -> None:
    text = (_ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| threat")]

    assert rows
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::test_\w+` *[|,]", row)] == []
    assert re.findall(r"`(tests/[\w/.]+)`", "\n".join(rows)) == []
