"""One noun a concept, and docstrings that stand alone: those rules of prose that a program can check."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_SOURCE = Path(__file__).parents[1] / "layerfs"
_PATHS = sorted(_SOURCE.rglob("*.py"))

SHARED_NAMES: dict[str, str] = {
    "Store": "one API in three faces: on trio, blocking, on asyncio",
    "Image": "a manifest with its config; that of a store in the faces of the API",
    "Mount": "a mount of this machine; one that a program made in the faces of the API",
    "Lease": "what is kept until when; held by a program in the faces of the API",
}
"""Class names that several modules define, and why they mean the same."""


def _classes(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def test_a_class_name_means_one_thing() -> None:
    homes = defaultdict(list)
    for path in _PATHS:
        for name in _classes(path):
            homes[name].append(str(path.relative_to(_SOURCE)))

    assert {name: paths for name, paths in homes.items() if len(paths) > 1 and name not in SHARED_NAMES} == {}


def _docstrings(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def test_no_docstring_lists_callers_or_begins_without_a_subject() -> None:
    """A tool knows who calls a module; a docstring that begins with "Of" cannot be read alone."""
    wrong = [
        (str(path.relative_to(_SOURCE)), text)
        for path in _PATHS
        for text in _docstrings(path)
        if re.match(r"Of |(?s:.*)\bCalled by\b", text)
    ]

    assert wrong == []
