"""``layerfs status``: the mounts of this machine, what they fetch and what went wrong lately."""

import os
import time
from datetime import datetime
from errno import ENOTCONN
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from layerfs.cli import options
from layerfs.cli.advice import advice
from layerfs.cli.app import app
from layerfs.cli.completion import complete_mountpoint
from layerfs.cli.output import print_json
from layerfs.errors import MountError
from layerfs.host import mounts
from layerfs.host.patience import read_within
from layerfs.view.texts import human_size

_STATUS_FILE: Final = b"/.layerfs/status.json"
_SECONDS: Final = 3.0
_SHOWN_ERRORS: Final = 5

Json = dict[str, Any]


@app.command(epilog="Example: layerfs status --json | jq -r '.[].mountpoint'")
def status(
    mountpoint: Annotated[
        Path | None,
        typer.Argument(metavar="MOUNTPOINT", help="Only this mount.", autocompletion=complete_mountpoint),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show the layerfs mounts of this machine: store, progress, recent errors with advice.

    With MOUNTPOINT the exit code is 0 only if that mount answers.
    """
    found = [_look(point) for point in _points(mountpoint)]
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("no layerfs mounts (layerfs mount DIRECTORY makes one)")
    else:
        for one in found:
            typer.echo("\n".join(_lines(one)))
    if mountpoint is not None and found[0]["state"] != "serving":
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


def _look(point: bytes) -> Json:
    """Return what the mount at *point* says of itself, and its state."""
    about: Json = {"mountpoint": os.fsdecode(point)}
    try:
        return (
            msgspec.json.decode(read_within(point + _STATUS_FILE, _SECONDS), type=Json)
            | about
            | {"state": "serving"}
        )
    except TimeoutError:
        return about | {"state": "hanging"}
    except (OSError, msgspec.DecodeError) as exc:
        if getattr(exc, "errno", None) == ENOTCONN:
            return about | {"state": "dead"}
        return about | {"state": "unreadable", "reason": str(getattr(exc, "strerror", None) or exc)}


def _lines(about: Json) -> list[str]:
    point = about["mountpoint"]
    match about["state"]:
        case "dead":
            return [f"{point}: dead, its daemon has ended (layerfs umount {point})"]
        case "hanging":
            return [f"{point}: no answer within {_SECONDS:g} s (is its daemon stopped?)"]
        case "unreadable":
            return [f"{point}: {about['reason']} (only the user who mounted it may look)"]
    lines = [
        f"{point}: serving {about.get('store', '?')} (pid {about.get('pid', '?')}, "
        f"{about.get('platform', '?')}{', offline' if about.get('offline') else ''})"
    ]
    if about.get("waiting"):
        lines.append(f"  {about['waiting']} waiting")
    lines += [f"  {_fetch_line(fetch)}" for fetch in about.get("fetching", ())]
    for error in about.get("errors", ())[-_SHOWN_ERRORS:]:
        when = datetime.fromtimestamp(error["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"  {when}  {error['what']}: {error['message']}")
        if (hint := error.get("advice") or advice(error["error"])) and hint not in error["message"]:
            lines.append(f"    {hint}")
    return lines


def _fetch_line(fetch: Json) -> str:
    size, received = fetch.get("size", 0), fetch.get("received", 0)
    share = f" ({100 * received // size} %)" if size else ""
    seconds = max(0.0, time.time() - fetch.get("since", time.time()))
    return (
        f"{fetch.get('phase')} {fetch.get('repository')}@{fetch.get('digest')}: {human_size(received)} of "
        f"{human_size(size)}{share}, {seconds:.0f} s"
    )
