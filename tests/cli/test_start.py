"""What a command imports before it does anything: no more than it needs, for it delays the first answer."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerfs.cli.app import VERBS, app
from tests.support import mounts
from tests.support.images import file, image, layer, write_layout
from tests.support.registry import Registry

_MODULES = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def imported_by(*statements: str) -> set[str]:
    """Run *statements* in a fresh interpreter and return the top-level modules that it has then."""
    code = "\n".join(("import sys", *statements, _MODULES))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_mount_imports_what_it_needs_to_answer() -> None:
    found = imported_by(
        "import layerfs.spared.process, layerfs.spared",
        "import layerfs.cli.mount, layerfs.app, layerfs.fuse.session, layerfs.view.tree, layerfs.reporting",
    )

    assert "pyfuse3" in found
    assert not found & {"httpx", "httpcore", "rich", "ssl", "idna", "email", "shutil", "subprocess"}


def test_an_extractor_imports_what_an_extraction_needs() -> None:
    found = imported_by("import layerfs.extract.worker")

    assert "isal" in found
    assert not found & {"subprocess", "trio", "typing_extensions", "zstandard", *_LIGHT}


def test_help_and_completion_import_no_machinery() -> None:
    found = imported_by("from layerfs.cli.app import app", "app.load()")

    assert "click" in found
    assert not found & {"trio", "pyfuse3", "httpx", "rich"}


_LIGHT = {
    "_cffi_backend", "ast", "dataclasses", "gettext", "inspect", "ipaddress", "json", "locale", "platform",
    "textwrap", "tokenize", "traceback",
}  # fmt: skip
"""What takes a millisecond or a few, and is not needed to do something with a store."""
_HEAVY = {
    "anyio", "asyncio", "httpcore", "httpx", "pydantic", "pyfuse3", "rich", "shutil", "ssl", "subprocess",
    "tempfile", "trio", "typing_extensions", "zstandard",
}  # fmt: skip
"""What takes long to import, or brings much along."""
_SHORT: set[str] = set()
_ATTRIBUTES = {"_cffi_backend"}  # of the files of a store
_JSON = {"json"}  # with indentation
_TRIO = {
    "trio", "ssl", "subprocess", "shutil", "tempfile", "ast", "inspect", "locale", "platform", "textwrap",
    "tokenize", "traceback",
}  # fmt: skip
"""trio brings the others."""
_ASKING = _TRIO | {"httpx", "httpcore", "dataclasses", "ipaddress", "json"}
"""`layerfs.registry.http` has httpx bring no more."""

_NEEDS: dict[str, set[str]] = {
    "--version": set(),
    "changes IMAGE": _SHORT,
    "config show": {"textwrap"},
    "config example": {"textwrap"},
    "df": _ATTRIBUTES,
    "doctor": _TRIO | _ATTRIBUTES | {"ipaddress"},
    "digest nobody.invalid/a --retry 0": _ASKING,
    "events": _JSON,
    "export IMAGE -o /dev/null": _ATTRIBUTES,
    "gc --dry-run": _ATTRIBUTES,
    "history IMAGE": _SHORT,
    "images --json --no-trunc": _JSON,
    "import oci:LAYOUT": _TRIO | {"ipaddress"},
    "inspect IMAGE": _JSON,
    "lease ls": _SHORT,
    "login --get-login nobody.invalid": _TRIO | _JSON | {"ipaddress"},
    "logout --all": _TRIO | _JSON | {"ipaddress"},
    "lowerdir IMAGE --format json": _ATTRIBUTES | _JSON,
    "man": {"shutil", "tempfile", "json", "textwrap", "tokenize", "traceback"},
    "mount /nonexistent/mountpoint": _SHORT,
    "overlay IMAGE TARGET": _ATTRIBUTES,
    "pull --offline nobody.invalid/a": _ASKING,
    "push IMAGE --retry 0": _ASKING,
    "rm --dry-run IMAGE": _ATTRIBUTES,
    "save IMAGE -o /dev/null": _ASKING,
    "serve --listen nowhere": _JSON,
    "status": _SHORT,
    "tags nobody.invalid/a --retry 0": _ASKING,
    "tree IMAGE --limit 3": _SHORT,
    "umount TARGET": _SHORT,
    "verify --quick --all": {"subprocess", "tempfile", "shutil", "locale"} | _ATTRIBUTES,  # its helpers
}
"""What each verb may import of `_HEAVY` and `_LIGHT`, with everything here that it asks for."""


@dataclass(frozen=True)
class Filled:
    """A store with one image, and what commands name."""

    store: Path
    words: dict[str, str]

    def modules_of(self, *argv: str) -> set[str]:
        """Run a command in a fresh interpreter; return all modules that it has at its end."""
        listed = self.store.with_name("modules")
        code = (
            "import atexit, sys; from layerfs.cli import main\n"
            "atexit.register(lambda: open(sys.argv.pop(1), 'w').write(' '.join(sys.modules)))\n"
        )
        code += f"atexit.register(sys.argv.insert, 1, {str(listed)!r})\nmain()"
        environment = {**os.environ, "LAYERFS_STORE": str(self.store), "HOME": str(self.store.parent)}
        subprocess.run(
            [sys.executable, "-c", code, *(self.words.get(word, word) for word in argv)],
            stdout=subprocess.DEVNULL, check=False, env=environment, cwd=self.store.parent,
        )  # fmt: skip
        return set(listed.read_text().split())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    base = tmp_path_factory.mktemp("start")
    layout, target = base / "layout", base / "target"
    target.mkdir()
    built = image(layer(file("a", b"a")), layer(file("b", b"b")))
    write_layout(layout, built, "1")
    name = "nobody.invalid/image:1"
    found = Filled(base / "store", {"oci:LAYOUT": f"oci:{layout}:1", "IMAGE": name, "TARGET": str(target)})
    found.modules_of("import", f"oci:{layout}:1", name)
    found.modules_of("lowerdir", name)  # which makes the cover
    yield found
    mounts.clear(target)


@pytest.mark.parametrize("words", _NEEDS)
def test_a_verb_imports_what_it_needs(filled: Filled, words: str) -> None:
    loaded = {name.partition(".")[0] for name in filled.modules_of(*words.split())}

    assert loaded & (_HEAVY | _LIGHT) <= _NEEDS[words]


def test_each_verb_has_a_row() -> None:
    assert {words.split()[0] for words in _NEEDS} - {"--version"} == set(VERBS)


def test_the_version_is_said_without_parsing_anything(filled: Filled) -> None:
    assert not filled.modules_of("--version") & {"click", "msgspec", "logging", "pathlib", "inspect"}


_STARTING = """
import atexit, sys
def hook(event, arguments):
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec"):
        with open(LISTED, "a") as file:
            words = arguments[1] if event in ("subprocess.Popen", "os.posix_spawn") else [event]
            print(*words, *sys.modules.keys() & {"trio", "httpx"}, file=file)
def end():
    with open(LISTED + ".modules", "w") as file:
        print(*sys.modules.keys() & HEAVY, file=file)
sys.addaudithook(hook)
atexit.register(end)
from layerfs.cli import main
main()
"""


def started_by(verb: str, name: str, store: Path) -> list[str]:
    """Run a verb; return the last word of each process that is started, or of what is imported by then."""
    listed = store.with_name("started")
    listed.write_text("")
    code = _STARTING.replace("LISTED", repr(str(listed))).replace("HEAVY", repr(_HEAVY | _LIGHT))
    argv = [sys.executable, "-c", code, verb, "--store", str(store), name]
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    assert set(listed.with_name("started.modules").read_text().split()) <= _ASKING | _ATTRIBUTES
    lines = listed.read_text().splitlines()
    return [line.split()[-1] for line in lines if "ldconfig" not in line]  # trio looks for libc


def test_a_pull_of_a_tiny_image_starts_one_worker_before_all_else_and_nothing_else(
    registry: Registry, tmp_path: Path
) -> None:
    name = str(registry.push("start/tiny", "1", image(layer(file("motd", b"hello")))))

    assert started_by("pull", name, tmp_path / "store") == ["layerfs.extract.worker"]


def test_a_verb_that_has_to_fetch_starts_a_worker_before_it_imports_trio(
    registry: Registry, tmp_path: Path
) -> None:
    name = str(registry.push("start/lower", "1", image(layer(file("motd", b"hello")))))

    assert started_by("lowerdir", name, tmp_path / "store") == ["layerfs.extract.worker"]
    assert started_by("lowerdir", name, tmp_path / "store") == []


def test_a_pull_of_what_is_here_starts_nothing(registry: Registry, tmp_path: Path) -> None:
    name = str(registry.push("start/here", "1", image(layer(file("motd", b"hello")))))
    started_by("pull", name, tmp_path / "store")

    assert started_by("pull", name, tmp_path / "store") == []


_ENDING = """
import atexit, sys, threading, time
class Module:
    def __del__(self):
        print("taken apart")
def last():
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    print("thread")
module = Module()
atexit.register(print, "registered")
if THREAD:
    threading.Thread(target=last).start()
from layerfs.cli import main
main()
"""


@pytest.mark.parametrize(
    ("thread", "said"),
    [
        pytest.param(False, "registered", id="nothing is taken apart for nobody"),
        pytest.param(True, "thread registered taken apart", id="a thread is waited for"),
    ],
)
def test_a_command_ends_with_its_code_and_all_that_was_to_be_done(
    filled: Filled, thread: bool, said: str
) -> None:
    code = _ENDING.replace("THREAD", str(thread))
    argv = [sys.executable, "-c", code, "images", "--store", str(filled.store.with_name("missing"))]
    done = subprocess.run(argv, capture_output=True, text=True)

    assert (done.returncode, done.stdout.split()) == (3, said.split())


def test_every_verb_is_in_the_module_that_the_table_says() -> None:
    app.load()
    assert app.commands.keys() - {"completion"} == set(VERBS)
    for name, module in VERBS.items():
        registered = vars(importlib.import_module(f"layerfs.cli.{module}"))
        assert {name, f"{name}_", f"{name}_app"} & registered.keys(), name


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_alone_is_as_good_as_with_all_others(verb: str) -> None:
    called = (
        "from layerfs.cli.app import app",
        f"app.load({verb!r})",
        f"assert {verb!r} in app.commands",
    )
    assert "click" in imported_by(*called)
