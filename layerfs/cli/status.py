"""``layerfs status``: the mounts of this machine, what they fetch and what went wrong lately."""

import os
import time
from datetime import datetime
from errno import ENOTCONN
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.completion import complete_mountpoint
from layerfs.cli.failures import advice
from layerfs.cli.output import print_json, print_line
from layerfs.errors import MountError
from layerfs.host import mounts
from layerfs.host.patience import read_within
from layerfs.status import Status, Underway, parse_status
from layerfs.view.texts import human_size

_STATUS_FILE: Final = b"/.layerfs/status.json"
_SECONDS: Final = 3.0
_SHOWN_ERRORS: Final = 5


class Look(msgspec.Struct, frozen=True):
    """One mount and how its daemon is."""

    mountpoint: str
    state: Literal["serving", "hanging", "dead", "unreadable"]
    reason: str = ""
    """Why it is unreadable."""
    status: Status | None = None
    """What it says of itself, if it is serving."""

    def builtins(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        said = {} if self.status is None else msgspec.to_builtins(self.status)
        about = {"mountpoint": self.mountpoint, "state": self.state}
        return said | about | ({"reason": self.reason} if self.reason else {})


@app.command(epilog="Example: layerfs status --json | jq -r '.[].mountpoint'")
def status(
    mountpoint: Annotated[
        Path | None,
        typer.Argument(metavar="MOUNTPOINT", help="Only this mount.", autocompletion=complete_mountpoint),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show the layerfs mounts of this machine and what they do.

    That is their store, what they fetch, and recent errors with advice.
    With MOUNTPOINT the exit code is 0 only if that mount answers.
    """
    found = [_look(point) for point in _points(mountpoint)]
    if as_json:
        print_json([one.builtins() for one in found])
    elif not found:
        typer.echo("no layerfs mounts (layerfs mount DIRECTORY makes one)")
    else:
        for one in found:
            for line in _lines(one):
                print_line(line)
    if mountpoint is not None and found[0].state != "serving":
        raise typer.Exit(1)


def _points(wanted: Path | None) -> list[bytes]:
    """Return where our mounts are, each point once. Raises MountError if *wanted* is none of them."""
    points = [mount.point for mount in mounts.read_mounts() if mount.is_layerfs and mount.root == b"/"]
    if wanted is None:
        return list(dict.fromkeys(points))
    # By the text first: what resolves a path asks a daemon that may hang.
    point = os.path.abspath(os.fsencode(wanted))  # noqa: PTH100 - bytes, as the kernel has them
    if point not in points:
        point = os.path.realpath(point)
    if point not in points:
        raise MountError(f"{wanted}: no layerfs mount (layerfs status lists them)")
    return [point]


def _look(point: bytes) -> Look:
    """Return what the mount at *point* says of itself, and its state."""
    where = os.fsdecode(point)
    try:
        return Look(where, "serving", status=parse_status(read_within(point + _STATUS_FILE, _SECONDS)))
    except TimeoutError:
        return Look(where, "hanging")
    except (OSError, msgspec.DecodeError, RecursionError) as exc:
        if getattr(exc, "errno", None) == ENOTCONN:
            return Look(where, "dead")
        return Look(where, "unreadable", reason=str(getattr(exc, "strerror", None) or exc))


def _lines(look: Look) -> list[str]:
    point = look.mountpoint
    match look.state:
        case "dead":
            return [f"{point}: dead, its daemon has ended (layerfs umount {point})"]
        case "hanging":
            return [f"{point}: no answer within {_SECONDS:g} s (is its daemon stopped?)"]
    about = look.status
    if about is None:
        return [f"{point}: {look.reason} (only the user who mounted it may look)"]
    offline = ", offline" if about.offline else ""
    lines = [f"{point}: serving {about.store} (pid {about.pid}, {about.platform}{offline})"]
    if about.waiting:
        lines.append(f"  {about.waiting} waiting")
    lines += [f"  {_fetch_line(one)}" for one in about.fetching]
    for failure in about.errors[-_SHOWN_ERRORS:]:
        when = datetime.fromtimestamp(failure.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"  {when}  {failure.what}: {failure.message}")
        if (hint := advice(failure.error)) and hint not in failure.message:
            lines.append(f"    {hint}")
    return lines


def _fetch_line(one: Underway) -> str:
    share = f" ({100 * one.received // one.size} %)" if one.size else ""
    seconds = max(0.0, time.time() - one.since)
    return (
        f"{one.phase} {one.repository}@{one.digest}: {human_size(one.received)} of "
        f"{human_size(one.size)}{share}, {seconds:.0f} s"
    )
