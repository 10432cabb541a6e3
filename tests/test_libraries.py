"""The libraries that layerfs stands on: declared exactly, bounded, and with the private doors that it uses.

A new version that closes such a door fails here, with the library's name, and not as a riddle elsewhere.
"""

import ast
import inspect
import io
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pyfuse3
import pytest

from layerfs.cli import cleaned
from layerfs.host.objects import places_of, put_number

_ROOT = Path(__file__).parents[1]
_DISTRIBUTIONS = {"_pyfuse3": "pyfuse3", "prometheus_client": "prometheus-client"}
"""Distributions whose modules have other names."""


def _declared() -> dict[str, str]:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["fsspec"]]
    return dict(re.fullmatch(r"([a-z0-9-]+)(.*)", line).groups() for line in lines)  # type: ignore[union-attr,misc]


def _imported() -> set[str]:
    names = set()
    for path in (_ROOT / "layerfs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return {_DISTRIBUTIONS.get(name, name) for name in names - sys.stdlib_module_names - {"layerfs"}}


def test_what_is_declared_is_what_is_imported() -> None:
    assert set(_declared()) == _imported()


def test_every_dependency_has_both_bounds() -> None:
    assert [
        name for name, bounds in _declared().items() if not re.fullmatch(r">=[\d.]+,<[\d.]+", bounds)
    ] == []


def _locked() -> dict[str, str]:
    """Return the versions in the lock file, each of which has a hash."""
    text = (_ROOT / "scripts/lib/requirements.lock").read_text(encoding="utf-8")
    entries = re.findall(r"^([a-z0-9-]+)==(\S+)(.*(?:\n    \S.*)*)", text, re.MULTILINE)
    assert [name for name, _, rest in entries if "--hash=sha256:" not in rest] == []
    return {name: version for name, version, _ in entries}


def test_the_lock_file_has_what_is_declared_and_what_the_tests_run_with() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    locked = _locked()
    for line in wanted:
        name = re.split("[>=<]", line)[0]
        assert locked.get(name) == version(name), f"{name}: make the lock file anew, as its head says"


def test_isal_has_the_reader_that_takes_any_object_with_read() -> None:
    """`layerfs` reads gzip through it without a BufferedReader in between."""
    isal_zlib = import_module("isal.isal_zlib")
    packed = import_module("gzip").compress(b"some bytes")

    reader = isal_zlib._GzipReader(io.BytesIO(packed), 1 << 16)

    target = bytearray(100)
    assert target[: reader.readinto(target)] == b"some bytes"


def test_httpx_and_httpcore_do_without_what_cannot_be_imported() -> None:
    """`layerfs.registry.http` spares them what takes longer to import than they do."""
    code = (
        "from layerfs.registry.http import httpcore, httpx\n"
        "import sys\n"
        "print(*sys.modules.keys() & {'anyio', 'asyncio', 'click', 'rich', 'pygments', 'zstandard'})\n"
        "import anyio, zstandard\n"
        "print(httpx.Client.__module__, httpcore.AsyncConnectionPool.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["", "httpx httpcore"]


def test_msgspec_needs_nothing_of_typing_extensions_that_typing_lacks() -> None:
    """`layerfs.spared` has msgspec do without it, also in programs that use both."""
    code = (
        "from layerfs.spared import msgspec\n"
        "import sys\n"
        "print('typing_extensions' in sys.modules)\n"
        "from typing_extensions import Annotated, NotRequired, Required, TypedDict\n"
        "class Said(TypedDict, total=False):\n"
        "    name: Required[Annotated[str, msgspec.Meta(min_length=2)]]\n"
        "    size: NotRequired[int]\n"
        "def outcome(raw):\n"
        "    try: return msgspec.json.decode(raw, type=Said)\n"
        "    except msgspec.ValidationError as error: return error\n"
        'for raw in (b\'{"name":"ab"}\', b\'{"name":"a"}\', b\'{"size":1}\'): print(outcome(raw))\n'
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "False",
        "{'name': 'ab'}",
        "Expected `str` of length >= 2 - at `$.name`",
        "Object missing required field `name`",
    ]


def test_what_stands_in_for_a_module_says_what_that_says() -> None:
    """`layerfs.spared` has pathlib, logging, uuid and msgspec import these without running them."""
    code = (
        "from layerfs.spared import msgspec, platform\n"
        "import logging, os, sys\n"
        "spared = ['ipaddress', 'msgspec.inspect', 'platform', 'textwrap', 'traceback']\n"
        "said = platform.machine(), platform.system()\n"
        "print(*sys.modules.keys() & set(spared))\n"
        "import urllib.parse, platform as real\n"
        "print((real.machine(), real.system()) == said, platform.python_version() == real.python_version())\n"
        "print(urllib.parse.urlsplit('http://[::1]:80/').hostname, msgspec.inspect.type_info(bool))\n"
        "from layerfs.store.xattrs import xattr\n"
        "print('xattr' in sys.modules, xattr.listxattr('/proc/self/fd'))\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.exception('told')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["", "True True", "::1 BoolType()", "False ()"]
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_trio_and_pyfuse3_do_without_what_layerfs_does_not_need() -> None:
    """`layerfs.spared.process` spares them; what was late is there when it is used."""
    code = (
        "import layerfs.spared.process, sys\n"
        "started = []\n"
        "sys.addaudithook(lambda event, _: event == 'subprocess.Popen' and started.append(event))\n"
        "import trio, pyfuse3\n"
        "late = ['ctypes.util', 'email', 'idna', 'importlib.metadata', 'ssl', 'subprocess', 'tempfile']\n"
        "print(*started, *sys.modules.keys() & set(late))\n"
        "async def main():\n"
        "    done = await trio.run_process(['true'])\n"
        "    found = await trio.socket.getaddrinfo('bücher.invalid', 80, flags=trio.socket.AI_NUMERICHOST)\n"
        "    print(done.returncode, found)\n"
        "try: trio.run(main)\n"
        "except trio.socket.gaierror as error: print('idna' in sys.modules)\n"
        "import ctypes.util, importlib.metadata\n"
        "print(ctypes.util.find_library('c'), importlib.metadata.version('trio') == trio.__version__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["", "True", "libc.so.6 True"]


def test_the_threads_of_a_process_that_spares_trio_have_names() -> None:
    """`layerfs.spared.process` says itself how the library is called that names them."""
    named = (
        "import trio\n"
        "from trio._core import _thread_cache as cache\n"
        "print(cache.set_os_thread_name is not None)\n"
    )
    argv = [sys.executable, "-c"]
    plain, spared = (
        subprocess.run([*argv, before + named], capture_output=True, text=True, check=True).stdout
        for before in ("", "import layerfs.spared.process\n")
    )

    assert plain == spared


@pytest.mark.parametrize("text", ["One line.", "  Two\tblanks. ", "", "Two\n    lines.\n", "\n  None.\n"])
def test_a_help_text_loses_its_indentation_as_click_would_do_it(text: str) -> None:
    assert cleaned(text) == inspect.cleandoc(text)


def test_certifi_runs_when_it_is_asked_for_certificates() -> None:
    """`layerfs.registry.http` has httpcore import it without running it."""
    code = (
        "from layerfs.registry.http import httpcore\n"
        "import sys\n"
        "print('importlib.resources' in sys.modules)\n"
        "from httpcore._ssl import default_ssl_context\n"
        "print(len(default_ssl_context().get_ca_certs()) > 10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["False", "True"]


def test_httpcore_reads_by_a_number_of_its_class() -> None:
    """`layerfs.registry.transport` makes it larger: most of the time of a download went into small reads."""
    connection = import_module("httpcore").AsyncHTTP11Connection
    source = Path(inspect.getfile(connection.handle_async_request)).read_text(encoding="utf-8")

    assert isinstance(connection.READ_NUM_BYTES, int)
    assert "self.READ_NUM_BYTES" in source


@pytest.mark.parametrize("name", ["lowlevel", "Lock"])
def test_pyfuse3_asks_its_own_name_for_trio(name: str) -> None:
    """`layerfs.fuse.polling` stands in for it there."""
    trio = import_module("pyfuse3").trio

    assert trio is import_module("trio")
    assert hasattr(trio, name)


def test_an_entry_of_pyfuse3_has_the_number_of_its_node_before_that_of_its_file() -> None:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0x1234567890ABCDEF
    assert len(places_of(entry, entry.st_ino)) == 2
    put_number(entry, places_of(entry, entry.st_ino)[0], 0)
    assert entry.st_ino == 0  # which is that of the node
