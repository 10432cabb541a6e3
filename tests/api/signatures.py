"""Every name that programs may use, with its signature, as the source has it: the same for each Python."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import layerfs

KEPT: Final = Path(__file__).with_name("signatures.txt")

_SOURCE: Final = Path(layerfs.__file__).parent
_MODULES: Final = (
    *("api/on_trio", "api/images", "api/blocking", "api/on_asyncio", "api/facts", "api/options"),
    *("gc/listing", "gc/survey", "gc/jobs"),
)
_OPERATORS: Final = frozenset({"__aenter__", "__enter__"})


def text() -> str:
    """Return the API as it is now."""
    lines = [f"layerfs: {', '.join(sorted(layerfs.__all__))}"]
    for module in _MODULES:
        lines += _module(module)
    lines.append("layerfs.errors:")
    lines += [f"    {ast.unparse(node).partition(':')[0]}" for node in _body("errors", ast.ClassDef)]
    return "".join(f"{line}\n" for line in lines)


def _module(name: str) -> Iterator[str]:
    yield f"layerfs.{name.replace('/', '.')}:"
    for node in _body(name, ast.ClassDef, ast.FunctionDef):
        if isinstance(node, ast.FunctionDef):
            yield f"    {_signature(node)}"
        elif isinstance(node, ast.ClassDef):
            bases = ", ".join(map(ast.unparse, [*node.bases, *(keyword.value for keyword in node.keywords)]))
            yield f"    class {node.name}({bases}):"
            yield from (f"        {line}" for line in _members(node))


def _members(node: ast.ClassDef) -> Iterator[str]:
    for member in node.body:
        match member:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not name.startswith("_") or name in _OPERATORS:
                    decorators = "".join(f"@{ast.unparse(one)} " for one in member.decorator_list)
                    yield decorators + _signature(member)
            case ast.AnnAssign():
                yield ast.unparse(member)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    begin = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{begin} {node.name}({ast.unparse(node.args)}){returned}"


def _body(name: str, *kinds: type[ast.stmt]) -> list[ast.stmt]:
    tree = ast.parse((_SOURCE / f"{name}.py").read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, kinds)]
    return [node for node in found if not str(getattr(node, "name", "_")).startswith("_")]


if __name__ == "__main__":
    KEPT.write_text(text(), encoding="utf-8")
