"""Fixtures for all tests, and two watchmen: over log records, and over what a session leaves behind.

A test that needs root, FUSE or the registry server is skipped where they are missing, with the
reason; with ``CI=true`` such a skip is a failure.
"""

import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from layerfs.store import usage
from tests.attacks import report
from tests.support import leftovers, mounts, nginx
from tests.support import registry as registry_support
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry import Registry

_IN_CI = os.environ.get("CI") == "true"

# From util-linux 2.39 on mount(8) refuses options above 255 bytes, which paths of tests have; see README.md.
os.environ["LIBMOUNT_FORCE_MOUNT2"] = "always"
# In a container: nobody outside of it uses the stores of tests.
os.environ[usage.VARIABLE] = os.readlink("/proc/self/ns/pid")

# No property depends on how fast the machine is, and CI tries the same examples each time: a fault that only
# some of them find is for those who look for it, not for whoever changes something else.
settings.register_profile(
    "layerfs",
    settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True),
    **({"derandomize": True, "database": None} if _IN_CI else {}),
)
settings.load_profile("layerfs")


_LONG_FILES = [
    "store/test_crash.py",
    "cli/test_examples.py",
    "end_to_end/test_cost.py",
    "rootless/test_filesystems.py",
    "rootless/test_user.py",
    "overlay/test_lowerdirs.py",
    "overlay/test_recipes.py",
    "end_to_end/test_scripts.py",
    "cli/test_streams.py",
    "cli/test_completion.py",
    "extract/test_worker.py",
]
"""Those that take longest, in that order: they begin first, else one process may begin one at the end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")
    parser.addoption("--attack", metavar="AREAS", default="", help="some of tests/attacks/areas.py, or all")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "allow_warnings: log records of WARNING and above are expected")
    config.addinivalue_line("markers", "needs_root: needs the rights to mount and to own files")
    config.addinivalue_line("markers", "needs_fuse: needs /dev/fuse")
    if os.geteuid() == 0:
        mounts.isolate()
    asked = config.getoption("--attack")
    if asked or config.getoption("--long"):
        config.pluginmanager.register(report.Attacks(asked))
    # Shells and nohup ignore signals in what they start in the background,
    # and programs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / path: rank for rank, path in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes (--long runs it)"))


def pytest_collection_finish() -> None:
    """Let no collection of garbage look again at the 700,000 objects that 8,000 tests are."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        skip_for_lack_of("root (run scripts/test as root, or through sudo)")
    if item.get_closest_marker("needs_fuse"):
        require_fuse()


def skip_for_lack_of(thing: str) -> None:
    """Skip the running test because this machine lacks *thing*; fail it in CI."""
    if _IN_CI:
        pytest.fail(f"this machine lacks {thing}, and CI must not skip", pytrace=False)
    pytest.skip(f"this machine lacks {thing}")


def require_fuse() -> None:
    """Skip the running test where FUSE cannot be used."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip_for_lack_of("a usable /dev/fuse")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        skip_for_lack_of("fusermount3 (package fuse3)")


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Count the tries that held of a test that makes several; `scripts/attack` prints the sum."""
    return lambda number: request.node.user_properties.append((report.TRIED, number))


@pytest.fixture(scope="session")
def _session_registry(
    tmp_path_factory: pytest.TempPathFactory, _nothing_is_left_over: None
) -> Iterator[Registry]:
    if not registry_support.available():
        skip_for_lack_of("docker-registry (package docker-registry)")
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def registry(_session_registry: Registry) -> Registry:
    """A registry shared by the session: use a repository name of your own, and `mark()` the log."""
    return _session_registry


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry for this test alone: it may be paused, stopped and damaged."""
    if not registry_support.available():
        skip_for_lack_of("docker-registry (package docker-registry)")
    with Registry(tmp_path / "own-registry") as running:
        yield running


@pytest.fixture
def has_nginx() -> None:
    """For a test that runs `tests.support.nginx`."""
    if not nginx.available():
        skip_for_lack_of("nginx (package nginx-light)")


@pytest.fixture
def faulty() -> Iterator[FaultyRegistry]:
    """A registry with switches for faults, all off."""
    with FaultyRegistry() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A path for a new store."""
    return tmp_path / "store"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A new directory in memory, for tests that make many files or sync often and are not about disks."""
    with tempfile.TemporaryDirectory(prefix="layerfs-test-", dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB and a hundred inodes (root only: mark the test)."""
    with mounts.tmpfs(tmp_path / "small", "size=1m", "nr_inodes=100", "mode=755") as path:
        yield path


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    """An empty directory to mount at; the test unmounts it (see `tests.support.mounts`)."""
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _no_unexpected_log_records(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("allow_warnings"):
        return
    loud = [
        record
        for phase in ("setup", "call")
        for record in caplog.get_records(phase)
        if record.levelno >= logging.WARNING
    ]
    if loud:
        lines = "\n".join(f"{record.levelname} {record.name}: {record.getMessage()}" for record in loud)
        pytest.fail(f"unexpected log records (mark the test allow_warnings if they are right):\n{lines}")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    watch = leftovers.Watch(tmp_path_factory.getbasetemp())
    yield
    found = watch.left_over()
    if found:
        pytest.fail("left over by this session:\n" + "\n".join(found), pytrace=False)
