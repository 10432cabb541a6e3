"""Every external program that layerfs, its tests and its scripts start is in a package that they install.

A machine on which somebody works has more than a fresh one, so a forgotten package shows only elsewhere
(`scripts/fresh` tries it in full). This reads the sources instead: the words that begin a command line there,
against the list in scripts/lib/packages, and against what each script says it needs.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_SCRIPTS = _ROOT / "scripts"
_WORD = re.compile(r"[a-z][a-z0-9_.+-]*\Z")


def _words(text: str) -> list[str]:
    return text.split()


# Of packages that every Debian has (Essential, or Priority: required), and apt.
ALWAYS_THERE = frozenset(
    _words(
        "apt-get awk bash cat chmod chown chroot cp cut dd df diff dirname du echo env find findmnt flock "
        "grep gzip head id ln losetup ls mkdir mktemp mknod modprobe mount mountpoint mv nproc nsenter paste "
        "pivot_root printf readlink rm rmdir sed seq setpriv sh sha256sum sleep sort stat sync tail tar tee "
        "test touch tr true truncate umount uname unshare wc xargs dpkg-query "
        "apt-cache date ldd pwd"
    )
)
# Made by our own scripts, or guarded by a check that says what is missing.
OURS = {
    "layerfs": "what this is",
    "ratarmount": "scripts/bench installs it from PyPI",
    "containerd": "in the roots of scripts/make-lazy-images, as are the next two",
    "ctr": "beside containerd",
    "ctr-remote": "of stargz-snapshotter",
    "sudo": "only where the user is not root, with an error that names it",
    "promtool": "19 MB for one test, which says that it skips without",
    "systemctl": "only on a machine that systemd runs",
    "python3": "what a newcomer must have",
    "ruff": "in .venv",
    "mypy": "in .venv",
    "pytest": "in .venv",
}
IN_EXAMPLES = {"pass", "apt", "pip", "echo", "apptainer", "singularity", "srun", "sbatch"}
"""What examples name besides: told to people, and stood in for or left out where the tests run them."""
# Words that begin lists of arguments, or come first in a call, without being programs.
NO_PROGRAMS = frozenset(
    _words(
        "absent adjtimex capget capset docker.io ghcr.io latest login lowerdir none overlay prctl read "
        "relative req statx syncfs syscall tgkill umount2 x509"
    )
)
_STARTS = frozenset(
    {"run", "Popen", "check_output", "check_call", "call", "which", "posix_spawn", "as_root", "_tool"}
)
_WRAPPERS = frozenset({"alone", "as_root", "env", "exec", "sudo"})
"""What runs the command line that follows it; the first two are functions of our scripts."""
_BUILT_IN = frozenset(
    _words(
        "[ [[ : . break case cd command continue declare die do done echo elif else esac eval exec exit "
        "export fi for function has_package if in kill local mapfile note read return set shift then time "
        "trap unset until wait while"
    )
)


@dataclass(frozen=True)
class Package:
    """A row of scripts/lib/packages."""

    name: str
    programs: frozenset[str]


def packages() -> dict[str, Package]:
    rows = [
        line.split() for line in (_SCRIPTS / "lib" / "packages").read_text().splitlines() if line[:1] != "#"
    ]
    return {row[0]: Package(row[0], frozenset(row[2:])) for row in rows}


def started_by_python(text: str) -> Iterator[str]:
    """Yield the first word of what looks like the begin of a command line."""
    tree = ast.parse(text)
    constants = dict(_constants(tree))

    def word_of(node: ast.expr) -> str:
        value = constants.get(node.id) if isinstance(node, ast.Name) else _text(node)
        return value if value and _WORD.match(value) else ""

    for node in ast.walk(tree):
        match node:
            case ast.List(elts=[first, *rest]) if rest and (word := word_of(first)):
                if any(not isinstance(each, ast.Constant) or _is_argument(each, "-/") for each in rest):
                    yield word
            case ast.Tuple(elts=[first, *rest]) if word := word_of(first):
                if any(_is_argument(each, "-") for each in rest):
                    yield word
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[first, *_]) if (
                name in _STARTS
            ):
                if word := word_of(first):
                    yield word


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(text))):
                yield name, text
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                yield name, text


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _is_argument(node: ast.expr, begins: str) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, str) and len(value) > 1 and value[0] in begins


def started_by_shell(text: str) -> Iterator[str]:
    """Yield the first word of each command of a script; of quoted text only what it substitutes."""
    functions = set(re.findall(r"\b([a-z_]+)\(\)", text))
    text = re.sub(r"(^|\s)#.*", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    text = re.sub(r"(?sm)<<-?\s*['\"]?(\w+)['\"]?.*?^\1$", "", text)
    text = re.sub(r"'[^']*'", "''", text)
    text = "\n".join([re.sub(r'"[^"]*"', '""', text), *re.findall(r"\$\(([^()]*)", text)])
    text = re.sub(r"=\([^()]*\)", "=x", text)
    text = re.sub(r"^\s*[^\s()]+( \| [^\s()]+)*\)", "", text, flags=re.MULTILINE)  # patterns of a case
    for command in re.split(r"[;|&(`\n{]|\b(?:then|do|else|if|elif|while|until)\s|! ", text):
        words = [word for word in command.split() if not re.match(r"[A-Za-z_]+\+?=", word)]
        while words and words[0] in _WRAPPERS:
            del words[0]
            words = [*dropwhile(lambda word: word.startswith("-"), words)]
        if words and _WORD.match(words[0]) and words[0] not in functions | _BUILT_IN:
            yield words[0]


@cache
def _started_in(path: Path) -> frozenset[str]:
    return frozenset(started_by_python(path.read_text(encoding="utf-8")))


def _python_sources() -> list[Path]:
    return [path for part in ("layerfs", "tests", "scripts") for path in sorted((_ROOT / part).rglob("*.py"))]


def _shell_sources() -> list[Path]:
    return [
        path
        for path in sorted(_SCRIPTS.rglob("*"))
        if path.is_file() and (path.suffix == ".sh" or path.read_bytes().startswith(b"#!/usr/bin/env bash"))
    ]


def examples() -> Iterator[tuple[str, str]]:
    """Yield name and text of what help and documents tell people to type; the tests type it, too."""
    for path in sorted((_ROOT / "layerfs" / "cli").glob("*.py")):
        for example in re.findall(r"Example: (.*?)[\"']\)", path.read_text(encoding="utf-8")):
            yield path.name, example
    for path in [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))]:
        for block in re.findall(
            r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            yield path.name, block


@pytest.mark.parametrize(("name", "text"), [*examples()])
def test_programs_of_examples_are_declared(name: str, text: str) -> None:
    assert _undeclared(started_by_shell(text)) - IN_EXAMPLES == set(), name


def _undeclared(found: Iterable[str]) -> set[str]:
    declared = frozenset().union(*(package.programs for package in packages().values()))
    known = declared | ALWAYS_THERE | OURS.keys() | NO_PROGRAMS
    return {word for word in found if word not in known}


def test_programs_that_python_starts_are_declared() -> None:
    found = {
        (str(path.relative_to(_ROOT)), word)
        for path in _python_sources()
        for word in _undeclared(_started_in(path))
    }

    assert found == set()


@pytest.mark.parametrize("path", _shell_sources(), ids=lambda path: str(path.relative_to(_ROOT)))
def test_programs_that_scripts_start_are_declared(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    helpers = re.findall(r"^([a-z_]+)\(\)", (_SCRIPTS / "lib" / "setup.sh").read_text(), re.MULTILINE)
    assert _undeclared(word for word in started_by_shell(text) if word not in helpers) == set()


def needed_by(script: str) -> set[str]:
    """Return the packages that a script installs."""
    text = re.sub(r"\\\n", " ", (_SCRIPTS / script).read_text(encoding="utf-8"))
    return {name for line in re.findall(r"need_packages ([^;\n]*)", text) for name in line.split()}


@pytest.mark.parametrize("script", ["test", "demo", "bench", "fresh", "package"])
def test_a_script_needs_packages_of_the_list(script: str) -> None:
    assert needed_by(script) <= packages().keys()


@pytest.mark.parametrize(
    ("script", "folders"),
    [
        pytest.param("test", ["layerfs", "tests", "scripts/demolib"], id="test"),
        pytest.param("demo", ["layerfs", "scripts/demolib"], id="demo"),
        pytest.param("bench", ["layerfs", "scripts/benchlib"], id="bench"),
        pytest.param("fresh", [], id="fresh"),
    ],
)
def test_a_script_installs_what_it_and_its_sources_start(script: str, folders: list[str]) -> None:
    homes = {program: package.name for package in packages().values() for program in package.programs}
    started = {
        word for folder in folders for path in (_ROOT / folder).rglob("*.py") for word in _started_in(path)
    }
    shell = [_SCRIPTS / script, _SCRIPTS / "lib" / "setup.sh"]
    started |= {word for path in shell for word in started_by_shell(path.read_text(encoding="utf-8"))}

    assert {homes[word] for word in started & homes.keys()} <= needed_by(script)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param('subprocess.run(["htpasswd", "-Bbn", name])', ["htpasswd"], id="a list in a call"),
        pytest.param('command = ["groff", *options]', ["groff"], id="a list that is assigned"),
        pytest.param('TOOLS = {"ls": ("pgrep", "-f")}', ["pgrep"], id="a tuple with an option"),
        pytest.param('shutil.which("xz")', ["xz"], id="a look-up"),
        pytest.param('SERVER: Final = "nginx"\nrun([SERVER, "-p", x])', ["nginx"], id="a constant"),
        pytest.param('names = ["one", "two"]', [], id="words alone"),
        pytest.param('run(layerfs, "ls")', [], id="not the first"),
    ],
)
def test_the_begin_of_a_command_line_is_found_in_python(text: str, words: list[str]) -> None:
    assert list(started_by_python(text)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a=1 htpasswd -c x | sort", ["htpasswd", "sort"], id="a pipe"),
        pytest.param("alone env -i groff x", ["groff"], id="wrappers"),
        pytest.param("if ! groff x; then\n  note no\nfi", ["groff"], id="a condition"),
        pytest.param("x=$(pgrep -f y)  # man", ["pgrep"], id="a substitution"),
        pytest.param("one() { xz; }\none", ["xz"], id="a function"),
        pytest.param("echo 'tree; man' && git log", ["git"], id="quotes"),
    ],
)
def test_the_commands_of_a_script_are_found(text: str, words: list[str]) -> None:
    assert sorted({*started_by_shell(text)}) == words
