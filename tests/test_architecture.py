"""Who may import whom (docs/architecture.md), who owns which library, and how long code may get.

An AST walk over the sources: imports inside functions and under TYPE_CHECKING count like all others. What is
loaded by its name at run time, as the verbs of `layerfs.cli.app` are, does not show.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[1] / "layerfs"

# What each part may import of layerfs, besides itself. A dotted name allows that module alone.
ARROWS: dict[str, set[str]] = {
    "spared": set(),
    "discreet": set(),
    "foreign": set(),
    "errors": {"foreign"},
    "oci": {"errors", "foreign", "spared"},
    "host": {"errors", "layer.overlayfs"},  # the text of an overlay's options
    "needs": {"oci"},
    "layer": {"errors", "foreign", "oci"},
    "compression": {"errors"},
    "processes": {"errors", "foreign", "host"},
    "extract": {"errors", "foreign", "oci", "layer", "compression", "processes", "host", "spared"},
    "registry": {"errors", "foreign", "oci", "host", "flights", "durations", "tomlfile", "spared",
        "discreet"},
    "local": {"errors", "foreign", "oci", "layer", "compression", "host"},
    "store": {"errors", "oci", "layer", "extract", "host", "processes", "spared"},
    "catalog": {"errors", "oci", "needs", "store"},
    "gc": {"errors", "oci", "settings", "store", "catalog"},
    "doctor": {"errors", "foreign", "host", "layer", "registry", "store"},
    "flights": {"errors", "machine"},
    "delegation": {"host"},
    "happening": {"status"},
    "fetch": {
        "errors", "oci", "needs", "layer", "extract", "processes", "registry", "store", "host", "flights",
        "status", "happening", "spared",
    },
    "view": {"errors", "oci", "needs", "layer", "store", "catalog"},
    "fuse": {"errors", "needs", "view", "host", "settings", "status"},
    "metrics": {"status"},
    "serve": {"errors", "foreign", "needs", "oci", "settings", "store", "catalog"},
    "status": {"foreign"},
    "bells": {"host", "status"},
    "containers": {"errors", "bells", "catalog", "needs", "oci", "store"},
    "settings": {"errors", "oci", "layer", "durations", "discreet"},
    "durations": set(),
    "machine": {"errors"},
    "tomlfile": {"errors", "host"},
    "config": {"errors", "layer", "settings", "host", "tomlfile"},
    "naming": {"oci", "registry", "settings"},
    "supervision": {"errors", "host", "registry", "settings", "status"},
    "reporting": {"errors", "oci", "store", "catalog", "fetch", "gc", "metrics", "status", "supervision"},
    "keeping": {"errors", "fetch", "gc"},
    "app": {"containers", "host", "keeping",
        "errors", "gc", "extract", "registry", "local", "store", "view",
        "fetch", "fuse", "reporting", "settings", "supervision",
    },
    "api": {
        "errors", "oci", "needs", "layer", "host", "store", "catalog", "view", "fetch", "gc", "settings",
        "status", "config", "app", "bells", "naming", "containers",
    },
    "serving": {
        "errors", "settings", "store", "fetch", "metrics", "serve", "status", "supervision", "app",
    },
    "cli": {
        "api",
        "errors", "foreign", "oci", "needs", "layer", "host", "registry", "local", "store", "catalog", "view",
        "doctor", "extract", "fetch", "gc", "settings", "status", "config", "app", "serving", "machine",
        "bells", "containers", "naming", "spared", "delegation", "flights", "supervision",
    },
    "__main__": {"cli"},
}  # fmt: skip

# Who may import a library or a dangerous module of the standard library; nobody else.
OWNERS: dict[str, set[str]] = {
    "httpx": {"registry"},
    "httpcore": {"registry"},
    "pyfuse3": {"fuse"},
    "ctypes": {"host"},
    "xattr": {"store"},
    "h11": {"serve"},
    "trio": {
        "app", "api", "keeping", "supervision", "flights", "processes", "registry", "local", "fetch", "fuse",
        "serve", "serving", "cli", "delegation",
    },
    "fsspec": {"api"},
    "click": {"cli"},
    "rich": {"cli"},
    "isal": {"compression", "layer"},
    "zstandard": {"compression"},
    "tomllib": {"tomlfile"},
    "prometheus_client": {"metrics"},
    "subprocess": {"extract", "processes", "host", "registry"},
    "multiprocessing": set(),
    "socket": {"delegation", "registry", "host", "processes"},
    "_socket": {"delegation"},
    "tarfile": set(),
    "asyncio": {"api"},
    "requests": set(),
    "urllib": {"registry"},
    "pickle": set(),
}  # fmt: skip

# Packages that decide and do no I/O: nothing that could touch a disk, a process or a socket.
PURE = {"oci", "layer"}
IMPURE_MODULES = {
    "fcntl", "io", "mmap", "os", "pathlib", "select", "shutil", "signal", "socket", "subprocess", "tempfile",
    "threading", "time",
}  # fmt: skip

MODULE_LINES = 300
FUNCTION_LINES = 40
# What is longer, by module or module:function, and why it is better in one piece.
LONGER: dict[str, str] = {
    "settings.table": "the one table: a few lines for each setting",
    "store.storage": "the facade that programs embed: many methods of a few lines each",
}


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    """Without ``layerfs.``; a package's own file has the package's name."""
    lines: int
    has_docstring: bool
    imports: tuple[str, ...]
    """Every imported module by its absolute name; for ``from a import b``, ``a.b``."""
    long: tuple[tuple[str, int], ...]
    """Functions that are too long, with their lines."""

    @property
    def part(self) -> str:
        """The key of ARROWS."""
        return self.name.partition(".")[0]

    def own_imports(self) -> Iterator[str]:
        """Yield what it imports of layerfs, without ``layerfs.``."""
        return _own(self.imports)


def _imports_in(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import (expected absolute ones)"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(names: Iterable[str]) -> Iterator[str]:
    return (name.removeprefix("layerfs.") for name in names if name.startswith("layerfs."))


@cache
def modules() -> dict[str, Module]:
    """Return all modules of layerfs by name."""
    found = {}
    for path in sorted(_SOURCE.rglob("*.py")):
        parts = path.relative_to(_SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        documented = ast.get_docstring(tree) is not None
        # Without the tree itself: the trees of all modules together take 100 MB.
        found[name] = Module(
            name, text.count("\n"), documented, tuple(_imports_in(name, tree)), tuple(_long_in(tree))
        )
    del found["__init__"]
    return found


def parts() -> list[str]:
    """Return the packages and top modules that exist."""
    found = {path.relative_to(_SOURCE).with_suffix("").parts[0] for path in _SOURCE.rglob("*.py")}
    return sorted(found - {"__init__"})


@pytest.mark.parametrize("part", parts())
def test_a_part_imports_only_what_its_arrows_allow(part: str) -> None:
    assert part in ARROWS, f"layerfs.{part} has no row in ARROWS: what may it import?"
    allowed = ARROWS[part] | {part, "__version__"}

    forbidden = [
        f"{module.name} imports {name}"
        for module in modules().values()
        if module.part == part
        for name in module.own_imports()
        if not any(_is_below(name, prefix) for prefix in allowed)
    ]

    assert not forbidden


@pytest.mark.parametrize("part", ARROWS)
def test_an_arrow_that_is_allowed_has_a_user(part: str) -> None:
    used = {name for module in modules().values() if module.part == part for name in module.own_imports()}

    assert [one for one in sorted(ARROWS[part]) if not any(_is_below(name, one) for name in used)] == []


def _is_below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@pytest.mark.parametrize("library", OWNERS)
def test_an_owner_of_a_library_uses_it(library: str) -> None:
    users = {
        module.part
        for module in modules().values()
        if any(name.partition(".")[0] == library for name in module.imports)
    }

    assert OWNERS[library] - users == set()


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_its_owners_only(library: str) -> None:
    trespassers = [
        module.name
        for module in modules().values()
        if module.part not in OWNERS[library]
        and any(name.partition(".")[0] == library for name in module.imports)
    ]

    assert not trespassers


@pytest.mark.parametrize("part", sorted(PURE))
def test_a_package_that_decides_does_no_io(part: str) -> None:
    impure = [
        f"{module.name} imports {name}"
        for module in modules().values()
        if module.part == part
        for name in module.imports
        if name.partition(".")[0] in IMPURE_MODULES
    ]

    assert not impure


def test_modules_do_not_import_each_other_in_circles() -> None:
    """Not even inside functions or for types: such a circle runs, but two modules are one then."""
    graph = {name: _targets(module) for name, module in modules().items()}
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in finished:
            for target in graph[name]:
                visit(target, (*path, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def _targets(module: Module) -> set[str]:
    known = modules()
    found = set()
    for name in module.own_imports():
        target = name if name in known else name.rpartition(".")[0]
        # A package's __init__ re-exports its modules; they may name their package's siblings through it.
        if target in known and target != module.name:
            found.add(target)
    return found


def test_the_table_of_arrows_has_no_circles() -> None:
    order: list[str] = []
    waiting = {part: {name.partition(".")[0] for name in allowed} for part, allowed in ARROWS.items()}
    while waiting:
        free = sorted(part for part, allowed in waiting.items() if allowed <= set(order))
        assert free, f"a circle among {sorted(waiting)}"
        order += free
        for part in free:
            del waiting[part]


def test_modules_and_functions_are_short_or_say_why_not() -> None:
    long = dict(_long())

    assert set(long) == set(LONGER), f"too long, or no longer so: {long} (expected {sorted(LONGER)})"


def test_docstrings_open_every_module() -> None:
    assert [module.name for module in modules().values() if not module.has_docstring] == []


def _long() -> Iterator[tuple[str, int]]:
    for module in modules().values():
        if module.lines > MODULE_LINES:
            yield module.name, module.lines
        for function, length in module.long:
            yield f"{module.name}:{function}", length


def _long_in(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > FUNCTION_LINES:
                yield function.name, length
