"""The command line, the environment and the end of a helper process."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import layerfs

if TYPE_CHECKING:
    import subprocess

_ROOT: Final = str(Path(layerfs.__file__).parents[1])


def command(module: str, *arguments: str) -> list[str]:
    """Return the argv that runs *module* of this layerfs, whatever the working directory holds."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return *given* for a helper, which must find this layerfs; `forget_path` takes that out again."""
    path = os.pathsep.join(filter(None, (_ROOT, given.get("PYTHONPATH"))))
    return {**given, "PYTHONPATH": path}


def bare_environment() -> dict[str, str]:
    """Return the environment of a helper that needs nothing of ours: it has no credentials to lose."""
    return environment({"PATH": os.defpath, "LC_ALL": "C.UTF-8"})


def forget_path() -> None:
    """In a helper: take out of the environment what `environment` put there, before programs get it."""
    _, _, rest = os.environ.pop("PYTHONPATH", "").partition(os.pathsep)
    if rest:
        os.environ["PYTHONPATH"] = rest


def how_it_ends(process: "subprocess.Popen[bytes]", seconds: float) -> str:
    """Wait so long for the end of a helper, and say in words what came of it."""
    import subprocess

    try:
        return how_it_ended(process.wait(seconds))
    except subprocess.TimeoutExpired:
        return "stopped answering"


def how_it_ended(status: int) -> str:
    """Say in words what the exit *status* of a helper means; negative for the number of a signal."""
    return f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
