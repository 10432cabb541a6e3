"""What people read when something is wrong: one row a situation, provoked for real, with the exact text.

``error_texts/`` has the texts, to be read as a whole; with LAYERFS_WRITE_EXPECTED=1 they are written
anew. What differs from run to run is a word in it: HOST, CLOSED, HOME.
"""

import os
import re
from pathlib import Path
from signal import Signals
from typing import Final

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.situations import IMAGE, SITUATIONS, Place, Situation
from tests.cli.situations_of_machines import OF_MACHINES, SMALL_DISK
from tests.cli.situations_of_mirrors import OF_MIRRORS
from tests.cli.test_streams import shell
from tests.support import clients
from tests.support.certificates import authority, issue
from tests.support.faulty_registry import FaultyRegistry
from tests.support.mounts import tmpfs
from tests.support.proxy import Proxy

EXPECTED: Final = Path(__file__).parent / "error_texts"
_FORBIDDEN: Final = re.compile(r"\[Errno|sub-exception|_ssl\.c|Traceback|WRONG_VERSION|Exception ignored")


@pytest.mark.needs_root
@pytest.mark.needs_fuse
@pytest.mark.parametrize("group", [*SITUATIONS, *OF_MACHINES, *OF_MIRRORS])
def test_error_texts(layerfs: CommandLine, tmp_path: Path, group: str) -> None:
    situations = [*SITUATIONS.get(group, ()), *OF_MACHINES.get(group, ()), *OF_MIRRORS.get(group, ())]
    disk = SMALL_DISK if group in OF_MACHINES else ()
    context = issue(tmp_path, authority(tmp_path), "registry.test").server_context()
    with FaultyRegistry(context) as tls, FaultyRegistry() as plain, tmpfs(tmp_path / "disk", *disk) as other:
        names = {"registry.test": tls, "other.test": tls, "plain.test": plain}
        with Proxy({f"{name}:443": registry.main.port for name, registry in names.items()}) as proxy:
            text = "\n".join(_told(one, layerfs, proxy, other) for one in situations)
    assert _FORBIDDEN.findall(text) == []
    expected = EXPECTED / f"{group.replace(' ', '-')}.txt"
    if os.environ.get("LAYERFS_WRITE_EXPECTED"):
        expected.write_text(text)
    assert text == expected.read_text()


def _told(one: Situation, layerfs: CommandLine, proxy: Proxy, disk: Path) -> str:
    """Return the situation and what it makes layerfs say, with names for what differs."""
    with FaultyRegistry() as faulty:
        faulty.push("a/b", "1", IMAGE)
        return _said(one, Place(layerfs, faulty, proxy, disk))


def _said(one: Situation, place: Place) -> str:
    one.prepare(place)
    words = place.words()
    environment = {name: _filled(value, words) for name, value in one.environment.items()}
    command = [_filled(word, words) if word != "''" else "" for word in one.command.split()]
    text = _run(one, command, environment, place)
    for name, value in words.items():
        text = text.replace(value, name)
    text = text.replace("python -m tests.support.layerfs", "layerfs")
    text = re.sub(r"(?<=blob )sha256:[0-9a-f]{64}(?= of CLOSED)", "EITHER", text)  # several at once
    text = re.sub(r"(?<=pid )\d+", "PID", text)
    text = re.sub(r"\d+(?= files)", "SOME", text)
    text = re.sub(r"(?<=after )\d+(?= s )", "SECONDS", text)
    return f"# {one.name}: {one.command} ({one.code})\n{text}"


def _run(one: Situation, command: list[str], environment: dict[str, str], place: Place) -> str:
    """Return what the command says on standard error; its exit code must be that of the situation."""
    layerfs = place.layerfs
    if not one.shell and one.signal is None:
        return layerfs(*command, code=one.code, stdin=one.stdin, environment=environment).stderr
    if one.shell:
        done = shell(layerfs, _filled(one.shell, place.words()), *command)
    else:
        done = layerfs.server.run(
            command,
            stdin=one.stdin,
            environment=layerfs.environment | environment,
            cwd=layerfs.home,
            timeout=60,
            meanwhile=lambda pid: _end(pid, one.signal, place),
        )
    assert done.returncode == one.code, done.stderr
    return done.stderr


def _end(pid: int, number: Signals | None, place: Place) -> None:
    """Send a signal to a command once it waits for the registry."""
    assert number is not None
    clients.wait_until(lambda: any("/manifests/" in asked.path for asked in place.faulty.asked))
    os.kill(pid, number)


def _filled(word: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda name: words[name[0]], word)
