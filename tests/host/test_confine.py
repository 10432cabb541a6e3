"""A helper that tries: what workers gave up is refused by the kernel, whoever runs their code."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from layerfs.errors import Offline
from layerfs.extract.client import ExtractorPool
from layerfs.fetch.operations import Resolve
from layerfs.fetch.remote import open_remote
from layerfs.host import confine
from layerfs.oci import Repository
from tests.support import clients
from tests.support.registry_client import quick

ATTEMPTS = {
    "write": "open('{target}/file', 'w').close()",
    "write elsewhere": "open('{other}/file', 'w').close()",
    "truncate elsewhere": "os.truncate('{other}/there', 0)",
    "remove elsewhere": "os.remove('{other}/there')",
    "link elsewhere": "os.link('{target}/there', '{other}/link')",
    "directory elsewhere": "os.mkdir('{other}/d')",
    "device elsewhere": "os.mknod('{other}/n', 0o600 | stat.S_IFCHR, os.makedev(1, 3))",
    "mode elsewhere": "os.chmod('{other}/there', 0o777)",
    "owner": "os.chown('{target}/there', 1, 1)",
    "attribute": "os.setxattr('{target}/there', 'user.a', b'1')",
    "times": "os.utime('{target}/there', (1, 1))",
    "network": "socket.create_connection(('127.0.0.1', 1), 1)",
    "datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "abstract socket": "socket.socket(socket.AF_UNIX)",
    "program": "os.execv('/bin/true', ['true'])",
    "other memory": "open('/proc/1/mem', 'rb').read(1)",
    "ptrace": "ctypes.CDLL(None, use_errno=True).ptrace(16, {owner}, 0, 0) and bad()",
    "mount": "ctypes.CDLL(None, use_errno=True).mount(b'none', b'/mnt', b'tmpfs', 0, None) and bad()",
    "namespace": "ctypes.CDLL(None, use_errno=True).unshare(0x20000) and bad()",
    "signal to the owner": "os.kill({owner}, 0)",
    "read": "open('{other}/there').read()",
}
READS = {"read"}
WRITER_MAY = {"write", "owner", "attribute", "times", "mode elsewhere", *READS}
"""Landlock knows no modes, owners, attributes. The writer needs these calls, and no decoder runs in it."""

TRIES = """
    import ctypes, errno, os, socket, stat, sys
    from layerfs.extract import worker, writer
    from layerfs.host import confine
    from layerfs.host.priority import give_way

    def bad():
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

    def tries(attempt):
        try:
            exec(attempt)
        except (OSError, PermissionError) as exc:
            os._exit(1 if exc.errno in (errno.EPERM, errno.EACCES) else 2)
        os._exit(0)

    give_way()
    {confined}
    for attempt in {attempts!r}:
        child = os.fork()
        if child == 0:
            tries(attempt)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
INFLATER = "worker.confine_inflater()"
WRITER = "writer.confine_writer(); confine.write_only_below(os.open('{target}', os.O_PATH))"


def outcomes(confined: str, tmp_path: Path) -> dict[str, str]:
    places = {"target": tmp_path / "target", "other": tmp_path / "other"}
    for place in places.values():
        place.mkdir()
        (place / "there").write_text("content")
    attempts = [attempt.format(**places, owner=os.getpid()) for attempt in ATTEMPTS.values()]
    code = textwrap.dedent(TRIES).format(confined=confined.format(**places), attempts=attempts)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (tmp_path / "other" / "there").read_text() == "content"
    words = {"0": "done", "1": "refused", "2": "another error"}
    return dict(zip(ATTEMPTS, (words[line] for line in done.stdout.split()), strict=True))


@pytest.fixture
def enforced() -> None:
    """Skip where the kernel has no Landlock, or no filters for this machine."""
    code = (
        "from layerfs.host import confine, priority; priority.give_way();"
        "print(confine.write_only_below() and confine.refuse_calls(confine.SYSTEM))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if done.stdout.strip() != "True":
        pytest.skip("this kernel has no Landlock, or no seccomp filters")


@pytest.mark.usefixtures("enforced")
def test_an_inflater_that_tries_can_only_read(tmp_path: Path) -> None:
    found = outcomes(INFLATER, tmp_path)
    assert {what for what, outcome in found.items() if outcome == "done"} == READS
    assert {outcome for what, outcome in found.items() if what not in READS} == {"refused"}


@pytest.mark.usefixtures("enforced")
@pytest.mark.needs_root
def test_a_writer_that_tries_writes_below_its_target_only(tmp_path: Path) -> None:
    found = outcomes(WRITER, tmp_path)
    assert {what for what, outcome in found.items() if outcome == "done"} == WRITER_MAY
    assert {outcome for what, outcome in found.items() if what not in WRITER_MAY} == {"refused"}


@pytest.mark.usefixtures("enforced")
def test_the_processes_of_a_real_worker_have_given_it_up() -> None:
    with ExtractorPool(1) as pool, pool.extractor() as extractor:
        clients.wait_until(lambda: _status(extractor.pid, "Seccomp") == "2")
        (writer,) = map(int, Path(f"/proc/{extractor.pid}/task/{extractor.pid}/children").read_text().split())
        clients.wait_until(lambda: _status(writer, "Seccomp") == "2")
        for pid in (extractor.pid, writer):
            assert _status(pid, "NoNewPrivs") == "1"
        read_only = 1 << confine.CAP_DAC_READ_SEARCH
        assert int(_status(extractor.pid, "CapEff"), 16) & ~read_only == 0
        assert int(_status(writer, "CapEff"), 16) >> (confine.CAP_SETFCAP + 1) == 0


def _status(pid: int, key: str) -> str:
    found = re.search(rf"^{key}:\s*(\S+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found[1] if found else ""


def test_the_numbers_are_those_of_this_machine() -> None:
    """Each refused call fails with EPERM although its arguments would make it fail otherwise."""
    code = textwrap.dedent("""
        import ctypes, errno, platform
        from layerfs.host import confine
        from layerfs.host.priority import give_way
        libc = ctypes.CDLL(None, use_errno=True)
        column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
        harmless = [name for name in confine.CALLS if name not in ("exit", "reboot")]
        give_way()
        assert confine.refuse_calls(list(confine.CALLS))
        for name in harmless:
            number = confine.CALLS[name][column]
            if number is not None:
                assert libc.syscall(number, -1, -1, -1, -1, -1, -1) == -1, name
                assert ctypes.get_errno() == errno.EPERM, name
        assert libc.syscall(39 if column == 0 else 172) > 0  # getpid
    """)
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


@pytest.mark.usefixtures("enforced")
@pytest.mark.parametrize("helper", [False, True])
async def test_a_real_downloader_has_given_it_up(helper: bool, tmp_path: Path) -> None:
    """Where a credential helper is configured, which is a program with files of its own, it keeps more."""
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"credHelpers": {"r.example": "x"}} if helper else {"auths": {}}))
    async with open_remote(quick(authfile=authfile, offline=True)) as remote:
        with pytest.raises(Offline):
            await remote.ask(Resolve(Repository("r.example", "a/b").with_tag("1")))
        (pid,) = clients.children("layerfs.fetch.downloader")
        assert _status(pid, "Seccomp") == ("0" if helper else "2")
        assert _status(pid, "NoNewPrivs") == "1"
        assert int(_status(pid, "CapEff"), 16) & ~(1 << confine.CAP_DAC_READ_SEARCH) == 0
