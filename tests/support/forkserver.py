"""Runs commands of layerfs in processes of their own that need not start: forks of one that has imported all.

``python -m tests.support.forkserver DESCRIPTOR`` is the one that is forked. A command has its own arguments,
environment, directory, descriptors and exit code, as if it had been executed, in a tenth of the time. What a
start costs and imports is tested elsewhere (tests/cli/test_start.py), and so are verbs as users call them.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from layerfs import cli
from layerfs.cli.app import app

_MESSAGE_BYTES = 1 << 17
_REPOSITORY = Path(__file__).parents[2]


class ForkServer:
    """The test's side. A context manager; runs one command at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            cwd=_REPOSITORY,
        )
        theirs.close()

    def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: str,
        environment: Mapping[str, str],
        cwd: Path,
        timeout: float,
        meanwhile: Callable[[int], object] = lambda pid: None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end. Raises TimeoutError, and the command is killed.

        *meanwhile* is called with its process id, once it runs.
        """
        message = json.dumps(
            {"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
        ).encode()
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin.encode())
            given.seek(0)
            files = [given, out, err]
            socket.send_fds(self._connection, [message], [file.fileno() for file in files])
            pid = self._answer(60)
            meanwhile(pid)
            try:
                code = self._answer(timeout)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._answer(60)
                raise
            for file in files[1:]:
                file.seek(0)
            return subprocess.CompletedProcess(
                list(arguments), code, out.read().decode(), err.read().decode()
            )

    def _answer(self, timeout: float) -> int:
        self._connection.settimeout(timeout)
        return int(self._connection.recv(_MESSAGE_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.wait()


def main() -> None:
    """Fork for each command until the other end closes; in the forks, run it and exit."""
    app.load()
    for name in ("httpx", "pyfuse3", "rich.progress", "rich.table", "layerfs.app", "layerfs.fuse.session"):
        import_module(name)  # what verbs import when they need it
    gc.freeze()  # a collection in a fork would copy it all
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, files, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(json.loads(message), files)
            os._exit(_run())
        for file in files:
            os.close(file)
        connection.send(b"%d" % pid)
        connection.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _run() -> int:
    """Run the command line; return its exit code. What this process was forked with needs no farewell."""
    try:
        cli.main()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    else:
        code = 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _become(command: dict[str, Any], files: list[int]) -> None:
    """Make this process look as if it had been executed for *command*."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for good
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["cwd"])
    sys.argv = ["layerfs", *command["arguments"]]


if __name__ == "__main__":
    main()
