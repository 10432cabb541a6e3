"""``layerfs events``: what the mounts of this machine did lately, and do from now on."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from layerfs.bells import read_events
from layerfs.cli import takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_mountpoint
from layerfs.cli.output import print_line
from layerfs.errors import MountError
from layerfs.foreign import escape_json
from layerfs.host.mounts import Mount, read_mounts
from layerfs.status import Event
from layerfs.view.texts import human_size

_PAUSE: Final = 0.5
"""Seconds between two looks of those who follow."""


@app.verb(epilog="Example: layerfs events --json | jq -r .what")
def events(
    mountpoint: Annotated[
        Path | None,
        takes.argument(metavar="MOUNTPOINT", help="Only of this mount.", shell_complete=complete_mountpoint),
    ] = None,
    follow: Annotated[
        bool, takes.option("--follow", "-f", help="Go on with what happens from now on, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, takes.option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show what the mounts of this machine did lately.

    That is start, fetch (a blob was fetched, verified and published), evict (bytes went, to keep to limits of
    the store) and failure. A mount remembers its last thousand; its log has them all.
    """
    point = None if mountpoint is None else os.path.realpath(os.fsencode(mountpoint))
    if not follow and point is not None and not list(_mounts(point)):
        raise MountError(f"{mountpoint}: no layerfs mount (layerfs status lists them)")
    seen: dict[tuple[bytes, float], int] = {}
    while True:
        for where, event in _news(point, seen):
            print_line(_json(where, event) if as_json else _text(where, event))
        if not follow:
            return
        time.sleep(_PAUSE)


def _news(point: bytes | None, seen: dict[tuple[bytes, float], int]) -> list[tuple[str, Event]]:
    """Return where and what happened that was not *seen*, the oldest first; it is seen then."""
    found: list[tuple[str, Event]] = []
    for mount in _mounts(point):
        with suppress(OSError, msgspec.DecodeError, RecursionError):  # dead, hanging, or somebody else's
            latest = read_events(mount)
            last = seen.get((mount.point, latest.started), 0)
            fresh = [event for event in latest.events if event.number > last]
            seen[mount.point, latest.started] = max((event.number for event in fresh), default=last)
            found += [(os.fsdecode(mount.point), event) for event in fresh]
    return sorted(found, key=lambda one: one[1].time)


def _mounts(point: bytes | None) -> Iterator[Mount]:
    for mount in read_mounts():
        if mount.is_layerfs and mount.root == b"/" and point in (None, mount.point):
            yield mount


def _json(where: str, event: Event) -> str:
    about: dict[str, Any] = {"mountpoint": where} | msgspec.to_builtins(event)
    return escape_json(json.dumps(about, ensure_ascii=False))


def _text(where: str, event: Event) -> str:
    when = datetime.fromtimestamp(event.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    size = f"  {human_size(event.size)}" if event.size else ""
    failure = f"  {event.error}: {event.message}" if event.error else ""
    return f"{when}  {where}  {event.kind}  {event.what}{size}{failure}"
