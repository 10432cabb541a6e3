"""Where a user's files lie by the XDG base directory specification.

The environment is an argument, so that a test, and a registry client with an environment of its own, can say
what it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

Kind = Literal["config", "data", "state"]

_BELOW_HOME: Final[dict[Kind, str]] = {"config": ".config", "data": ".local/share", "state": ".local/state"}
"""What stands for ``$XDG_<KIND>_HOME`` below ``$HOME``."""


def xdg(environ: Mapping[str, str], kind: Kind) -> Path | None:
    """Return the base directory of *kind*; None if neither its variable nor ``$HOME`` names one.

    A relative path in the variable is ignored, as the specification demands (section "Basics").
    """
    base = environ.get(f"XDG_{kind.upper()}_HOME", "")
    if Path(base).is_absolute():
        return Path(base)
    home = environ.get("HOME")
    return Path(home, _BELOW_HOME[kind]) if home else None
