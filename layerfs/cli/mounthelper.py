"""``mount.fuse.layerfs`` and ``mount.layerfs``: what mount(8) starts for fstab and for ``mount -t layerfs``.

Called as mount(8) calls helpers, ``SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]``, it does
what ``layerfs mount -o OPTIONS`` does, and ends with the codes that mount(8) documents, which systemd knows.
"""

import os
import pwd
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import InvalidSettings, LayerfsError, UsageError
from layerfs.machine import machine_fault

USAGE: Final = 1
SYSTEM: Final = 2
BUG: Final = 4
INTERRUPTED: Final = 8
FAILED: Final = 32
"""Exit codes of mount(8): a wrong call, this machine, ourselves, a signal, the mount."""

NOTHING: Final = frozenset({"none", "layerfs"})
"""Sources that say nothing: the store is the one of the options, or the default one."""

_EXPECTED: Final = "expected SOURCE DIRECTORY [-sfnv] [-t TYPE] [-o OPTIONS], as mount(8) says it"


class Wanted(msgspec.Struct, frozen=True):
    """What mount(8) asks for."""

    source: str
    directory: str
    options: tuple[str, ...] = ()
    """Single words of ``-o``."""
    config: str | None = None
    """The file of the word ``config=``."""
    fake: bool = False
    """Only look whether the call is right."""
    sloppy: bool = False
    """Words that nobody knows are left out."""


def parse(arguments: Sequence[str]) -> Wanted:
    """Read the arguments behind the name of the program. Raises UsageError."""
    places: list[str] = []
    words: list[str] = []
    letters = ""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument == "-":
            places.append(argument)
            continue
        for at, letter in enumerate(argument[1:], 2):
            if letter in "sfnvrw":
                letters += letter
            elif letter in "ot":
                value = argument[at:] or next(rest, "")
                if not value:
                    raise UsageError(f"-{letter}: nothing behind it ({_EXPECTED})")
                words += filter(None, value.split(",")) if letter == "o" else ()
                break
            elif letter == "N":
                raise UsageError("-N: another mount namespace (expected nsenter --mount=FILE mount ...)")
            else:
                raise UsageError(f"{argument}: no such option ({_EXPECTED})")
    if len(places) != 2:
        raise UsageError(f"{len(places)} arguments ({_EXPECTED})")
    return _call(places[0], places[1], words, letters)


def _call(source: str, directory: str, words: list[str], letters: str) -> Wanted:
    if "remount" in words:
        raise UsageError(
            f"{directory}: a mount of layerfs cannot be mounted anew with other options (expected umount, "
            "then mount; a daemon reads its configuration again at SIGHUP)"
        )
    files = [word.removeprefix("config=") for word in words if word.startswith("config=")]
    if "" in files:
        raise UsageError("-o config=: no file named (expected config=/etc/layerfs/config.toml)")
    return Wanted(
        source=source,
        directory=directory,
        options=tuple(word for word in words if not word.startswith("config=")),
        config=files[-1] if files else None,
        fake="f" in letters,
        sloppy="s" in letters,
    )


def command_line(call: Wanted) -> list[str]:
    """Return the arguments of ``layerfs`` that do it. Raises UsageError, InvalidSettings."""
    from layerfs.cli import mountoptions

    words = []
    for word in call.options:
        try:
            mountoptions.parse([word])
        except UsageError:
            if not call.sloppy:
                raise
            continue
        words.append(word)
    source = [] if call.source in NOTHING else [call.source]
    if call.source.startswith("/"):  # a store; what -o says of it counts more, being said by name
        words.insert(0, f"store={call.source}")
        source = []
    if not set(call.source) & set(",\\"):  # what libfuse reads as more than a name
        words.insert(0, f"{mountoptions.SOURCE}={call.source}")
    config = [] if call.config is None else ["--config", call.config]
    options = [f"-o{','.join(words)}"] if words else []
    return [*config, "mount", *options, "--", *source, call.directory]


def main() -> None:
    """Be the helper, and exit."""
    from layerfs.cli import interrupts

    interrupts.heed()
    try:
        code = _run(sys.argv[1:])
    except LayerfsError as error:
        code = _told(error)
    except interrupts.Interrupted as end:
        sys.stderr.write(f"layerfs: {end}\n")
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last frame; whatever it is, mount(8) gets its code
        if fault := machine_fault(error):
            code = _told(fault, SYSTEM)
        else:
            traceback.print_exc()
            code = BUG
    sys.stderr.flush()
    os._exit(code)


def _run(arguments: list[str]) -> int:
    call = parse(arguments)
    line = command_line(call)
    if call.fake:
        return 0
    _require_store(call.source)
    _find_home()
    from layerfs.cli.app import app

    try:
        app(line)
    except SystemExit as end:
        return FAILED if end.code else 0
    return 0


def _require_store(source: str) -> None:
    """Raise InvalidSettings for a directory that is no store: a word may have become its path."""
    path = Path(source)
    if path.is_absolute() and path.is_dir() and any(path.iterdir()):
        from layerfs.store.layout import StoreLayout

        if not StoreLayout(path).owner.exists():
            raise InvalidSettings(
                f"{source}: a directory with other things in it, no store (expected none, or the path of a "
                "store; mount(8) makes a path of a word that is the name of a file where it runs)"
            )


def _find_home() -> None:
    """Set HOME, which mount(8) takes from the environment when an ordinary user runs it."""
    if "HOME" not in os.environ:
        with suppress(KeyError):
            os.environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir


def _told(error: LayerfsError, code: int = FAILED) -> int:
    sys.stderr.write(f"layerfs: {error}\n")
    return USAGE if isinstance(error, UsageError | InvalidSettings) else code
