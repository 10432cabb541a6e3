"""The face for threads: calls from many at once, Ctrl-C, deadlines, fork, and a store that is closed."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import layerfs
from layerfs.errors import NotFound, StoreError, UsageError
from layerfs.status import Underway
from tests.api.conftest import IMAGE
from tests.support.registry import Registry


def test_ten_lines_from_a_name_to_files(store: Path, reference: str) -> None:
    with layerfs.Store.open(store) as opened:
        image = opened.pull(reference)
        assert image.read_bytes("etc/self") == b"welcome"
        assert [entry.path for entry in image.walk("run")][:2] == ["/etc", "/etc/loop"]
        assert [one.digest for one in opened.images()] == [image.digest] == [IMAGE.digest]
        with image.open("etc/motd") as file:
            assert file.read(3) == b"wel"
        assert len(image.lowerdirs()) == 3
        assert opened.gc(plan_only=True).freed == 0


@pytest.mark.needs_root
def test_a_root_is_mounted_for_a_block(pulled: tuple[Path, str], mountpoint: Path) -> None:
    store, reference = pulled
    with layerfs.Store.open(store) as opened, opened.image(reference).mount(mountpoint, rw=True) as mount:
        (mountpoint / "etc/motd").write_text("mine")
        assert mount.upper is not None
        assert (mount.upper / "etc/motd").read_text() == "mine"

    assert os.listdir(mountpoint) == []


def test_threads_share_a_store(pulled: tuple[Path, str]) -> None:
    store, reference = pulled
    with layerfs.Store.open(store) as opened, ThreadPoolExecutor(8) as pool:

        def read(number: int) -> bytes:
            image = opened.pull(reference) if number % 2 else opened.image(reference)
            return image.read_bytes("etc/motd")

        assert set(pool.map(read, range(40))) == {b"welcome"}


def test_errors_are_those_of_the_implementation(store: Path, reference: str) -> None:
    with layerfs.Store.open(store) as opened:
        with pytest.raises(NotFound):
            opened.pull(f"{reference}-nothing")
        with pytest.raises(FileNotFoundError):
            opened.image(reference).stat("nothing")
    with pytest.raises(StoreError):
        layerfs.Store.open("/dev/null/nothing")


def test_a_closed_store_says_so(pulled: tuple[Path, str]) -> None:
    store, reference = pulled
    opened = layerfs.Store.open(store)
    image = opened.pull(reference)
    opened.close()
    opened.close()

    with pytest.raises(UsageError, match="closed"):
        image.read_bytes("etc/motd")
    with pytest.raises(UsageError, match="closed"):
        opened.images()


def test_closing_ends_what_other_threads_wait_for(store: Path, pausing: Registry) -> None:
    reference = str(pausing.push("api/closing", "1", IMAGE))
    opened = layerfs.Store.open(store)
    with pausing.paused(), ThreadPoolExecutor(1) as pool:
        begun = threading.Event()

        def pull() -> None:
            begun.set()
            opened.pull(reference)

        waiting = pool.submit(pull)
        begun.wait()
        opened.close()
        with pytest.raises(UsageError, match="closed"):
            waiting.result()


def test_a_deadline_holds_for_the_calls_of_a_block(store: Path, pausing: Registry) -> None:
    reference = str(pausing.push("api/late", "1", IMAGE))
    with layerfs.Store.open(store) as opened:
        late = pytest.raises(TimeoutError, match="stays")
        with pausing.paused(), layerfs.fail_after(0.2), layerfs.fail_after(60), late:
            opened.pull(reference)
        assert opened.pull(reference).digest == IMAGE.digest


def test_a_callback_may_not_call_the_store(store: Path, reference: str) -> None:
    with layerfs.Store.open(store) as opened:

        def call(_: Underway) -> None:
            opened.images()

        with pytest.raises(UsageError, match="callback"):
            opened.pull(reference, progress=call)


def test_a_child_of_fork_opens_a_store_of_its_own(store: Path, reference: str) -> None:
    code = (
        "import os, sys, layerfs\n"
        "with layerfs.Store.open(sys.argv[1]) as store:\n"
        "    image = store.pull(sys.argv[2])\n"
        "    if not os.fork():\n"
        "        try:\n"
        "            image.read_bytes('etc/motd')\n"
        "        except layerfs.errors.UsageError as exc:\n"
        "            assert 'fork' in str(exc)\n"
        "        with layerfs.Store.open(sys.argv[1]) as mine:\n"
        "            os._exit(7 if mine.image(sys.argv[2]).read_bytes('etc/motd') == b'welcome' else 1)\n"
        "    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\n"
        "    assert image.read_bytes('etc/motd') == b'welcome'\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(store), reference]
    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_a_pull_and_the_store_goes_on(store: Path, pausing: Registry) -> None:
    reference = str(pausing.push("api/interrupted", "1", IMAGE))
    code = (
        "import signal, sys, layerfs\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it\n"
        "with layerfs.Store.open(sys.argv[1]) as store:\n"
        "    try:\n"
        "        print('begun', flush=True)\n"
        "        store.pull(sys.argv[2])\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', len(store.images()), flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(store), reference]
    with pausing.paused(), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()

    assert (rest, process.returncode) == ("interrupted 0\n", 0)


def test_a_store_that_is_forgotten_ends_its_thread(store: Path) -> None:
    layerfs.Store.open(store)  # and nobody keeps it
    for thread in threading.enumerate():
        if thread.name == "layerfs":
            thread.join(30)
            assert not thread.is_alive()
