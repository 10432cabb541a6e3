"""What one check has found."""

from typing import Final, Literal

import msgspec

State = Literal["ok", "warning", "failure"]

WORST: Final[tuple[State, ...]] = ("ok", "warning", "failure")
"""The states, the worst last."""


class Observation(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    """What it is, in a word or two that stay the same: scripts look for it."""
    state: State
    """A warning: something that layerfs can do cannot be had here. A failure: what it is for cannot."""
    found: str
    mend: str = ""
    """A command, or a sentence if none helps. Empty if all is well, or nothing can be done."""


def ok(check: str, found: str) -> Observation:
    """Return that all is well."""
    return Observation(check, "ok", found)


def warning(check: str, found: str, mend: str = "") -> Observation:
    """Return that something cannot be had."""
    return Observation(check, "warning", found, mend)


def failure(check: str, found: str, mend: str = "") -> Observation:
    """Return that nothing works."""
    return Observation(check, "failure", found, mend)


def worst(observations: "list[Observation]") -> State:
    """Return the worst state of all; ok for none."""
    return max((one.state for one in observations), key=WORST.index, default="ok")
