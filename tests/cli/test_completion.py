"""Completion in the real shells: what it offers, and that nothing it offers is more to a shell than a word.

Each shell runs on a terminal of its own with the script that ``layerfs completion`` prints. A stand-in for
``layerfs`` hands Tab over to the real one, and writes down the words it got when Enter runs the line.
"""

import contextlib
import os
import pty
import select
import shutil
import signal
import string
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from layerfs.cli.completion import SCRIPTS, is_harmless
from tests.cli.conftest import CommandLine
from tests.support import mounts
from tests.support.images import file, image, layer, write_layout

_PROMPT = "READY> "
_CANARY = "canary"
_OTHER_USER = 65534
_SECONDS = 30.0
_LOCAL_FLAGS = 3
"""Where termios has them."""

_RECORDER = """\
#!/bin/sh
[ -z "$_LAYERFS_COMPLETE" ] || exec {layerfs} "$@"
printf '%s\\0' "$@" {end} >> {words}
"""
_END = "end-of-words"

_RC = {
    "bash": "PS1='{prompt}'; PROMPT_COMMAND=; bind 'set bell-style none'; source {script}\n",
    "zsh": "PS1='{prompt}'; unsetopt beep; fpath=({directory} $fpath); autoload -U compinit; compinit -uD\n",
    "fish": "function fish_prompt; echo -n '{prompt}'; end; function fish_greeting; end; source {script}\n",
}
_START = {
    "bash": ["bash", "--noprofile", "--rcfile", "{rc}", "-i"],
    "zsh": ["zsh", "-i"],
    "fish": ["fish", "--no-config", "--private", "--init-command", "source {rc}", "-i"],
}

HOSTILE = {
    "escaped substitution": rf"\$(touch {_CANARY})",
    "substitution": f"$(touch {_CANARY})",
    "substitution of fish": f"(touch {_CANARY})",
    "backquotes": f"`touch {_CANARY}`",
    "escaped backquotes": rf"\`touch {_CANARY}`",
    "next command": f";touch {_CANARY};",
    "in quotes": f"\"$(touch {_CANARY})\"'$(touch {_CANARY})'",
    "end of quotes": f"'))'; touch {_CANARY}; '",
    "next line": f"\ntouch {_CANARY}\n",
    "pipe": f"|touch {_CANARY}",
    "behind a colon": f":$(touch {_CANARY})",
    "parameter of zsh": f"${{(e):-\\$(touch {_CANARY})}}",
    "control": f"\x15touch {_CANARY}\r",
    "not UTF-8": f"\udc9b$(touch {_CANARY})",
    "right to left": f"\u202e$(touch {_CANARY})",
}


class Terminal:
    """A shell on a terminal."""

    def __init__(self, shell: str, layerfs: CommandLine) -> None:
        self.shell = shell
        self.home = layerfs.home / shell
        (self.home / "bin").mkdir(parents=True)
        self._words = self.home / "words"
        self._words.touch()
        recorder = self.home / "bin" / "layerfs"
        real = shutil.which("layerfs", path=layerfs.environment["PATH"])
        recorder.write_text(_RECORDER.format(layerfs=real, words=self._words, end=_END))
        recorder.chmod(0o755)
        script = self.home / "_layerfs"
        script.write_text(layerfs("completion", shell).stdout)
        rc = self.home / ".zshrc"
        rc.write_text(_RC[shell].format(prompt=_PROMPT, script=script, directory=self.home))
        command = [word.format(rc=rc) for word in _START[shell]]
        environment = layerfs.environment | {
            "PATH": f"{recorder.parent}:{layerfs.environment['PATH']}",
            "HOME": str(self.home),
            "ZDOTDIR": str(self.home),
            "TERM": "vt100",
            "LC_ALL": "C.UTF-8",
        }
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(self.home)
            os.execvpe(shell, command, environment)
        self._shown = ""
        self._await(lambda: _PROMPT in self._shown and self._reads_keys(), "a prompt")

    def type(self, line: str) -> list[str]:
        """Type *line*, Tab and Enter; return the words that the program gets."""
        before = len(self._runs())
        os.write(self._terminal, line.encode() + b"\t\r")
        self._await(lambda: len(self._runs()) > before and self._reads_keys(), f"a run of {line!r}")
        return self._runs()[before]

    def _reads_keys(self) -> bool:
        """Say whether the shell edits a line: only then it takes keys one by one."""
        flags: list[int] = termios.tcgetattr(self._terminal)
        return not flags[_LOCAL_FLAGS] & termios.ICANON

    def _runs(self) -> list[list[str]]:
        runs = os.fsdecode(self._words.read_bytes()).split(f"{_END}\0")[:-1]
        return [run.split("\0")[:-1] for run in runs]

    def _await(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while not done():
            if select.select([self._terminal], [], [], 0.05)[0]:
                self._shown += os.read(self._terminal, 4096).decode(errors="replace")
            assert time.monotonic() < deadline, f"no {what}; the terminal shows {self._shown!r}"

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


@pytest.fixture(params=[*SCRIPTS])
def terminal(request: pytest.FixtureRequest, layerfs: CommandLine) -> Iterator[Terminal]:
    """Each of the shells in turn."""
    running = Terminal(request.param, layerfs)
    yield running
    running.close()


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_completion_runs_mountpoints(
    terminal: Terminal, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    top = tmp_path / "mounts"
    with contextlib.ExitStack() as stack:
        stack.enter_context(mounts.abandoned_fuse(top / "mine-named_well.1", os.getuid()))
        stack.enter_context(mounts.abandoned_fuse(top / "theirs-named_well", _OTHER_USER))
        for number, name in enumerate(HOSTILE.values()):
            stack.enter_context(mounts.abandoned_fuse(top / f"mine{number}-{name}", os.getuid()))
        assert terminal.type(f"layerfs umount {top}/theirs") == ["umount", f"{top}/theirs"]
        assert terminal.type(f"layerfs umount {top}/mine-") == ["umount", f"{top}/mine-named_well.1"]
        # Each Tab is a start of layerfs: every third name in this shell, the others in the other two.
        first, step = (
            (0, 1) if request.config.getoption("--long") else ([*_START].index(terminal.shell), len(_START))
        )
        for number in range(first, len(HOSTILE), step):
            typed = f"{top}/mine{number}-"
            assert terminal.type(f"layerfs umount {typed}") == ["umount", typed]
        assert not (terminal.home / _CANARY).exists()


def offered(layerfs: CommandLine, line: str) -> str:
    """Return what the program itself offers behind *line*."""
    environment = {"_LAYERFS_COMPLETE": "words", "_LAYERFS_LINE": line}
    program = shutil.which("layerfs", path=layerfs.environment["PATH"])
    done = subprocess.run(
        [str(program)], env=layerfs.environment | environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_only_own_mounts_with_harmless_names_are_offered(layerfs: CommandLine, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(mounts.abandoned_fuse(tmp_path / "mine", os.getuid()))
        stack.enter_context(mounts.abandoned_fuse(tmp_path / "theirs", _OTHER_USER))
        for number, name in enumerate(HOSTILE.values()):
            stack.enter_context(mounts.abandoned_fuse(tmp_path / f"{number}-{name}", os.getuid()))
        for verb in ("umount", "status"):
            assert offered(layerfs, f"layerfs {verb} {tmp_path}/") == f"{tmp_path}/mine\n"


@pytest.mark.parametrize(
    ("line", "first"),
    [
        pytest.param("layerfs ", "completion", id="verbs, without the hidden one"),
        pytest.param("layerfs ver", "verify", id="a verb"),
        pytest.param("layerfs config ", "check", id="a verb below another"),
        pytest.param("layerfs images --fo", "--format", id="an option"),
        pytest.param("layerfs images --quiet=false --form", "--format", id="behind a flag with a value"),
        pytest.param("layerfs images --format ", "table", id="what an option may be"),
        pytest.param("layerfs man ", "layerfs", id="what an argument may be"),
        pytest.param("layerfs verify --limit-rate ", "", id="nothing where anything may stand"),
        pytest.param("layerfs --config ", "", id="no file: the shell itself knows them"),
    ],
)
def test_what_may_stand_there_is_offered(layerfs: CommandLine, line: str, first: str) -> None:
    assert offered(layerfs, line).partition("\n")[0] == first


def test_the_shells_complete_verbs_and_references(
    terminal: Terminal, layerfs: CommandLine, tmp_path: Path
) -> None:
    write_layout(tmp_path / "lay", image(layer(file("a"))))
    layerfs("import", f"oci:{tmp_path}/lay", "quay.io/some/name:3")
    assert terminal.type("layerfs umou") == ["umount"]
    assert terminal.type("layerfs tree quay") == ["tree", "quay.io/some/name:3"]
    assert terminal.type("layerfs tree quay.io/some/name:") == ["tree", "quay.io/some/name:3"]


def test_names_that_others_put_into_a_store_are_never_offered(layerfs: CommandLine, tmp_path: Path) -> None:
    write_layout(tmp_path / "lay", image(layer(file("a"))))
    layerfs("import", f"oci:{tmp_path}/lay", "quay.io/name:3")
    refs = layerfs.store / "refs"
    for name in HOSTILE.values():
        shutil.copy(refs / "quay.io" / "name:3", refs / "quay.io" / f"name:{name}")
        shutil.copytree(refs / "quay.io", refs / f"quay.io{name}", dirs_exist_ok=True)
    assert offered(layerfs, "layerfs tree ") == "quay.io/name:3\n"


@pytest.mark.parametrize("shell", [*SCRIPTS])
def test_to_a_shell_a_harmless_name_is_itself(shell: str, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()  # what a pattern would find
    names = [
        word
        for letter in [*map(chr, range(1, 0x180)), "\u2028", "\u202e", "\udc9b", "\ufeff", "\U000e0041"]
        for word in (letter, f"a{letter}", f"/a{letter}b{letter}c")
        if is_harmless(word)
    ]
    assert {"/a1b1c", *string.ascii_letters} <= {*names}
    assert said_by(shell, "printf '%s\\n' " + " ".join(names), tmp_path) == names


def said_by(shell: str, program: str, directory: Path) -> Sequence[str]:
    options = {"bash": ["--norc"], "zsh": ["-f", "-o", "extendedglob"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *options, "-c", program],
        cwd=directory,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return os.fsdecode(done.stdout).splitlines()


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_is_not_harmless(name: str) -> None:
    assert not is_harmless(name)
    assert not is_harmless(f"/mnt/{name}")


@pytest.mark.parametrize("name", ["", "-rf", "~root", "=ls", "%1", "@x", "+x", ":x", "a b", "[::1]:5000/x"])
def test_a_word_that_a_shell_may_expand_is_not_harmless(name: str) -> None:
    assert not is_harmless(name)


class Bash:
    """Completes as bash does."""

    def __init__(self, layerfs: CommandLine) -> None:
        self._layerfs = layerfs
        self._script = layerfs.home / "completion.bash"
        self._script.write_text(layerfs("completion", "bash").stdout)

    def __call__(self, line: str) -> list[str]:
        program = (
            f'source {self._script}; COMP_LINE="$1"; COMP_POINT=${{#1}}; _layerfs layerfs; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", program, "bash", line],
            env=self._layerfs.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()


def test_bash_completes_verbs_options_references_and_their_tags(layerfs: CommandLine, tmp_path: Path) -> None:
    bash = Bash(layerfs)
    assert bash("layerfs tree ") == []
    assert not layerfs.store.exists(), "the Tab key must not make a store"
    write_layout(tmp_path / "lay", image(layer(file("a"))))
    for name in ("alpine:1", "alpine:2", "quay.io/x/y:3"):
        layerfs("import", f"oci:{tmp_path}/lay", name)
    assert "tree" in bash("layerfs t")
    assert bash("layerfs tree --lay") == ["--layer"]
    assert bash("layerfs tree quay") == ["quay.io/x/y:3"]
    assert bash("layerfs tree al") == ["alpine:1", "alpine:2"]
    assert bash("layerfs tree alpine:") == ["1", "2"]
    assert bash("layerfs tree docker.io/library/alpine:2") == ["2"]
    assert bash(f"layerfs tree --store {tmp_path}/gone al") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(layerfs: CommandLine, shell: str) -> None:
    assert layerfs("completion", shell).stdout == SCRIPTS[shell]  # type: ignore[index]  # all of them
