"""What this machine lacks is said in a line; what nobody thought of keeps its traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerfs.errors import LayerfsError, NotFound
from layerfs.machine import machine_fault
from tests.cli.conftest import CommandLine

NO_THREAD = RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(NO_THREAD, "can't start new thread; raise the limit of processes", id="a thread"),
        pytest.param(MemoryError(), "not enough memory; end something", id="memory"),
        pytest.param(
            OSError(errno.EMFILE, "Too many"), "Too many; raise the limit of desc", id="descriptors"
        ),
        pytest.param(OSError(errno.EIO, "I/O", "/x"), "/x: I/O; see dmesg", id="a disk"),
        pytest.param(ExceptionGroup("", [ExceptionGroup("", [NO_THREAD])]), "can't start", id="in a group"),
        pytest.param(ExceptionGroup("", [NO_THREAD, NotFound("y")]), "can't start", id="beside one of ours"),
        pytest.param(ExceptionGroup("", [NO_THREAD, ValueError()]), None, id="beside a bug"),
        pytest.param(RuntimeError("can't"), None, id="another RuntimeError"),
        pytest.param(OSError(errno.EBADF, "Bad"), None, id="a descriptor of ours"),
        pytest.param(ValueError("x"), None, id="a bug"),
    ],
)
def test_what_the_machine_lacks_is_told_from_bugs(error: Exception, said: str | None) -> None:
    fault = machine_fault(error)

    assert (fault is None) == (said is None)
    if said is not None:
        assert isinstance(fault, LayerfsError)
        assert said in str(fault)


def test_a_command_without_descriptors_says_so_in_a_line(layerfs: CommandLine, tmp_path: Path) -> None:
    hungry = tmp_path / "tests_hungry.py"
    hungry.write_text(
        "import resource\n"
        "from layerfs.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, hungry, "pull", "127.0.0.1:1/x"],
        env=layerfs.environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert os.strerror(errno.EMFILE) in done.stderr
