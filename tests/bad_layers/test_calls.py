"""Every call of the writer takes a directory's descriptor and follows no link: read from its source.

`os.link`, chmod, chown, utime and the xattr calls follow symlinks unless told not to, also with a directory
descriptor: this is how archives escape.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerfs.extract

_SOURCES = sorted(Path(layerfs.extract.__file__).parent.glob("*.py"))

_CREATES = {"mkdir", "mknod", "mkfifo", "symlink", "unlink", "rmdir", "remove"}
"""Follow no link in the last component; need `dir_fd` so that there is no other."""
_FOLLOWS = {"stat", "chmod", "chown", "utime"}
"""Follow the last component, too, unless told not to or given an open file."""
_XATTRS = {"getxattr", "setxattr", "listxattr", "removexattr"}
"""Take no `dir_fd` at all."""
_BY_DESCRIPTOR = {"scandir", "listdir", "truncate"}
_FORBIDDEN = {
    "makedirs", "removedirs", "rename", "renames", "replace", "walk", "fwalk", "access", "chdir", "chroot",
    "lchown", "lchmod", "readlink", "statvfs", "lstat", "mkfifoat",
}  # fmt: skip

_PATHS = {
    ("directories.py", "open_root"): "opens the target that the job names, before anything of the archive",
    ("tail.py", "__init__"): "opens the blob that the job names",
    ("skeletons.py", "_move"): "reads the TOC that the job names, before anything of the archive",
    ("unpacking.py", "read"): "opens a part of the blob that the job names",
    ("ownership.py", "_is_too_large"): "asks about the directory whose descriptor the path begins with",
    ("worker.py", "held"): "reads what the kernel says of this process",
}
"""Functions that may open a path, with the reason."""


def unsafe_calls(tree: ast.Module, file: str) -> Iterator[str]:
    """Yield a line for each call that could follow a link of an archive."""
    flags = _constants(tree)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call):
                    reason = _fault(call, flags)
                    if reason and (file, function.name) not in _PATHS:
                        yield f"{file}:{call.lineno} in {function.name}: {ast.unparse(call)}: {reason}"


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the text of each module-level constant."""
    found = {}
    for statement in tree.body:
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.value
        ):
            found[statement.target.id] = ast.unparse(statement.value)
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found[statement.targets[0].id] = ast.unparse(statement.value)
    return found


def _fault(call: ast.Call, flags: dict[str, str]) -> str | None:
    if isinstance(call.func, ast.Name):
        return "opens a path" if call.func.id == "open" else None
    if not isinstance(call.func, ast.Attribute):
        return None
    module, name = ast.unparse(call.func.value), call.func.attr
    if module == "shutil" or module.startswith("os.path"):
        return "works on paths" if name not in ("join",) else None
    if module != "os":
        return "opens a path" if name in ("read_bytes", "write_bytes", "open") and "Path" in module else None
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    first = ast.unparse(call.args[0]) if call.args else ""
    follows = given.get("follow_symlinks") != "False"
    by_descriptor = _is_descriptor(first)
    if name in _FORBIDDEN:
        return "takes no directory descriptor"
    if name == "open":
        text = flags.get(ast.unparse(call.args[1]), ast.unparse(call.args[1]))
        return None if "dir_fd" in given and "O_NOFOLLOW" in text else "without dir_fd and O_NOFOLLOW"
    if name in _CREATES:
        return None if "dir_fd" in given else "without dir_fd"
    if name == "link":
        linked = {"src_dir_fd", "dst_dir_fd"} <= given.keys()
        return None if linked and not follows else "without both dir_fds and follow_symlinks=False"
    if name in _FOLLOWS:
        return None if by_descriptor or ("dir_fd" in given and not follows) else "follows links"
    if name in _XATTRS:
        return (
            None if by_descriptor or given.get("follow_symlinks") in ("False", "follow") else "follows links"
        )
    return None if name not in _BY_DESCRIPTOR or by_descriptor else "takes a path"


def _is_descriptor(expression: str) -> bool:
    return expression == "fd" or expression.endswith((".fd", "_fd", "fileno()"))


@pytest.mark.parametrize("source", [pytest.param(path, id=path.name) for path in _SOURCES])
def test_the_writer_makes_no_call_that_follows_a_link(source: Path) -> None:
    assert list(unsafe_calls(ast.parse(source.read_text()), source.name)) == []


@pytest.mark.parametrize(
    "call",
    [
        "os.link(a, b, src_dir_fd=c, dst_dir_fd=d)",
        "os.link(a, b, follow_symlinks=False)",
        "os.chmod(name, 0o644, dir_fd=fd)",
        "os.chown(name, 0, 0)",
        "os.utime(name, ns=times, dir_fd=fd)",
        "os.stat(name, dir_fd=fd)",
        "os.setxattr(name, key, value)",
        "os.listxattr(path)",
        "os.open(name, os.O_RDONLY, dir_fd=fd)",
        "os.open(name, os.O_RDONLY | os.O_NOFOLLOW)",
        "os.mkdir(path)",
        "os.symlink(target, path)",
        "os.mknod(path, mode)",
        "os.makedirs(path)",
        "os.rename(a, b)",
        "os.listdir(path)",
        "os.path.exists(path)",
        "shutil.rmtree(path)",
        "open(path)",
        "Path(name).write_bytes(data)",
    ],
)
def test_a_call_that_follows_links_is_found(call: str) -> None:
    assert list(unsafe_calls(ast.parse(f"def write() -> None:\n    {call}\n"), "x.py"))


def test_the_exceptions_are_all_needed() -> None:
    for file, function in _PATHS:
        source = next(path for path in _SOURCES if path.name == file)
        found = [
            node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef)
        ]
        assert function in {node.name for node in found}
