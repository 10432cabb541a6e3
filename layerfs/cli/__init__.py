"""The command line: a module for each family of verbs, and the one place that prints.

`main` is the entry point of the ``layerfs`` script and of ``python -m layerfs``. A verb's module is
imported when it is called, and verbs import heavy libraries when they need them, so that a mount,
``layerfs --help`` and completion answer at once.
"""

import atexit
import gc
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from layerfs import __version__

if TYPE_CHECKING:
    from layerfs.cli.interrupts import Interrupted

_COLLECTIONS: Final = 100_000
"""New objects between two looks for garbage: what is imported stays, and looking is a tenth of the start."""


def main() -> None:
    """Run the command line and exit with the code of `layerfs.cli.failures`."""
    if sys.argv[1:] == ["--version"] and _said_version():
        return
    try:
        _run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _leave(end.code or 0)
        raise


def _run() -> None:
    from layerfs.cli import interrupts

    interrupts.heed()
    gc.set_threshold(_COLLECTIONS)
    heard = None
    if sys.argv[1:2] == ["pull"]:
        from layerfs.cli import delegating

        try:
            heard = delegating.pull(sys.argv[2:])
        except interrupts.Interrupted as end:
            _say_interrupted(end)
    _import_click()
    from layerfs.cli import streams

    streams.prepare()
    from layerfs.cli.app import app
    from layerfs.cli.completion import answer
    from layerfs.cli.failures import report
    from layerfs.errors import LayerfsError
    from layerfs.machine import machine_fault

    try:
        try:
            if "_LAYERFS_COMPLETE" in os.environ:  # the Tab key
                answer(app)
                sys.exit()
            app(obj=heard)
        except SystemExit:  # as it always leaves
            sys.stdout.flush()
            raise
    except LayerfsError as error:
        sys.exit(report(error))
    except interrupts.Interrupted as end:
        _say_interrupted(end)
    except Exception as error:
        if fault := machine_fault(error):
            sys.exit(report(fault))
        raise


def _say_interrupted(end: "Interrupted") -> NoReturn:
    sys.stderr.write(f"layerfs: {end}; run it again to go on\n")
    sys.exit(end.code)


def _import_click() -> None:
    """Import Click before a verb does, and msgspec and others before that, without what nobody here needs."""
    import layerfs.spared.process  # noqa: F401 - before a verb imports trio
    from layerfs.spared import without

    with without(given=_SAID_TO_CLICK):
        import click  # noqa: F401


def cleaned(text: str) -> str:
    """Return a text without the indentation of its source, as inspect.cleandoc does."""
    if "\n" not in text:
        return text.expandtabs().lstrip()
    from inspect import cleandoc

    return cleandoc(text)


_SAID_TO_CLICK: Final[Mapping[str, Mapping[str, Any]]] = {
    "gettext": {
        "gettext": lambda text: text,
        "ngettext": lambda one, several, number: one if number == 1 else several,
    },
    "inspect": {"cleandoc": cleaned},
}
"""Click looks for translations of its messages, which nobody has: all that layerfs says is English."""


def _leave(code: int) -> None:
    """End the process as the interpreter would, but without taking all modules apart, which is for nobody.

    Returns if there is a thread to wait for.
    """
    threading = sys.modules.get("threading")
    if threading and any(
        thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()
    ):
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # what there was to say of it was said
            stream.flush()
    os._exit(code)


def _said_version() -> bool:
    """Say the version; False if standard output does not take it, of which the long way tells."""
    line = f"layerfs {__version__}\n".encode()
    try:
        return os.write(1, line) == len(line)
    except OSError:
        return False


__all__ = ["main"]
