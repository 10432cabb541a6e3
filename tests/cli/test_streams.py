"""Standard streams that are closed, full or read by nobody: one line at most, and a mount that serves."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.support import clients, mounts
from tests.support.daemon import LAYERFS
from tests.support.images import file, image, layer, write_layout

_FULL = "layerfs: standard output: No space left on device\n"

_OUTPUT = (">&-", ">/dev/full")
STREAMS = {
    "stdin closed": "<&-",
    "stdout closed": _OUTPUT[0],
    "stderr closed": "2>&-",
    "output closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
    "stdout full": _OUTPUT[1],
    "stderr full": "2>/dev/full",
    "output full": ">/dev/full 2>/dev/full",
}


def shell(layerfs: CommandLine, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run *program*, in which ``"$@"`` is layerfs with *arguments*, by a shell that tells of pipes."""
    return subprocess.run(
        ["bash", "-c", program, "bash", *LAYERFS, *map(str, arguments)],
        env=layerfs.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def imported(layerfs: CommandLine, tmp_path: Path) -> CommandLine:
    """A command line whose store has ``a:1``."""
    write_layout(tmp_path / "lay", image(layer(file("a", b"line\n" * 400_000))))
    layerfs("import", f"oci:{tmp_path}/lay", "a:1")
    return layerfs


VERBS = ["inspect --raw a:1", "images", "--help", "lowerdir --no-fetch a:1", "export a:1"]


@pytest.mark.parametrize("redirection", STREAMS.values(), ids=STREAMS)
def test_no_stream_makes_a_traceback(
    imported: CommandLine, redirection: str, request: pytest.FixtureRequest
) -> None:
    full = redirection.startswith(">/dev/full")
    heard = "2>" not in redirection
    # Each is a start of layerfs: all verbs where standard output alone is at fault, else two in turn.
    turn = [*STREAMS.values()].index(redirection)
    some = [VERBS[turn % 5], VERBS[(turn + 2) % 5]]
    for command in VERBS if redirection in _OUTPUT or request.config.getoption("--long") else some:
        done = shell(imported, f'"$@" {redirection}', *command.split())
        assert done.returncode == full, command
        assert done.stderr == (_FULL if full and heard else ""), command
    for command, code, said in (("nonsense", 2, "No such command"), ("tree a@b", 2, "layerfs: ")):
        done = shell(imported, f'"$@" {redirection}', *command.split())
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert (said in done.stderr) == heard


def test_a_reader_that_ends_early_is_no_failure(imported: CommandLine) -> None:
    for command in ("export a:1", "inspect --raw a:1", "images", "--help"):
        done = shell(imported, '"$@" | true; exit ${PIPESTATUS[0]}', *command.split())
        assert (done.returncode, done.stderr) == (141, ""), command


def test_no_file_of_the_store_gets_the_number_of_a_stream(imported: CommandLine, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for descriptor, _ in enumerate((0, 1, 2)):
        closed = f"{descriptor}{'<' if descriptor == 0 else '>'}&-"
        shell(imported, f'strace -qf -e trace=openat -o {trace} "$@" {closed}', "images")
        opened = [line for line in trace.read_text().splitlines() if str(imported.store) in line]
        assert opened
        assert [line for line in opened if line.rpartition(" = ")[2].strip() in ("0", "1", "2")] == []


def test_what_the_encoding_has_not_is_an_escape(layerfs: CommandLine, tmp_path: Path) -> None:
    write_layout(tmp_path / "lay", image(layer(file("caf\xe9\u96ea"))))
    layerfs("import", f"oci:{tmp_path}/lay", "a:1")
    done = layerfs("tree", "a:1", environment={"PYTHONIOENCODING": "ascii"})
    assert "caf" in done.stdout


@pytest.mark.needs_root
@pytest.mark.needs_fuse
@pytest.mark.parametrize("redirection", STREAMS.values(), ids=STREAMS)
def test_a_daemon_serves_whatever_its_streams_are(
    layerfs: CommandLine, mountpoint: Path, tmp_path: Path, redirection: str
) -> None:
    log = tmp_path / "log"
    try:
        done = shell(layerfs, f'"$@" {redirection}', "mount", "--log-file", log, mountpoint)
        assert (done.returncode, done.stderr) == (0, "")
        pid = json.loads(clients.read(mountpoint / ".layerfs" / "status.json"))["pid"]
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)] == ["/dev/null"] * 3
        clients.run("ls", mountpoint / "images" / "no.example" / "such:1" / "rootfs")
        assert "Traceback" not in log.read_text()
    finally:
        mounts.clear(mountpoint)


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_daemon_survives_the_end_of_whoever_reads_its_log(layerfs: CommandLine, mountpoint: Path) -> None:
    reader, writer = os.pipe()
    environment = layerfs.environment
    command = [*LAYERFS, "mount", "-f", "--log-level", "debug", str(mountpoint)]
    with subprocess.Popen(command, env=environment, stdout=writer, stderr=writer) as running:
        try:
            os.close(writer)
            clients.wait_until(lambda: mounts.mount_at(mountpoint) is not None)
            os.close(reader)
            for number in range(3):
                clients.run("ls", mountpoint / "images" / "no.example" / f"such:{number}" / "rootfs")
            assert clients.names(mountpoint) > {"images", "layers"}
            assert os.readlink(f"/proc/{running.pid}/cwd") == "/"
        finally:
            running.terminate()
            running.wait(40)
            mounts.clear(mountpoint)
    assert running.returncode == 0


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_daemon_survives_a_log_that_takes_no_line(
    layerfs: CommandLine, mountpoint: Path, tmp_path: Path
) -> None:
    with mounts.tmpfs(tmp_path / "small", "size=4k") as small:
        (small / "filler").write_bytes(b"x" * 4096)
        log, errors = small / "log", tmp_path / "stderr"
        with errors.open("wb") as stderr:
            command = [
                *LAYERFS,
                "mount",
                "-f",
                "--log-file",
                str(log),
                "--log-level",
                "debug",
                str(mountpoint),
            ]
            running = subprocess.Popen(command, env=layerfs.environment, stderr=stderr)
        try:
            clients.wait_until(lambda: mounts.mount_at(mountpoint) is not None)
            clients.run("ls", mountpoint / "images" / "no.example" / "such:1" / "rootfs")
            (small / "filler").unlink()
            clients.run("ls", mountpoint / "images" / "no.example" / "such:2" / "rootfs")
            assert b"such:2" in log.read_bytes()
        finally:
            running.terminate()
            running.wait(40)
            mounts.clear(mountpoint)
    assert errors.read_bytes() == b""
    assert running.returncode == 0
