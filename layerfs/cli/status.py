"""``layerfs status``: the mounts of this machine, what they do, what went wrong lately, who uses them."""

import os
import time
from collections.abc import Sequence
from datetime import datetime
from errno import ENOTCONN
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import click
import msgspec

from layerfs.bells import STATUS_SECONDS, read_status, serves_bells_alone
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_mountpoint
from layerfs.cli.failures import advice
from layerfs.cli.output import print_json, print_text
from layerfs.cli.overlaid import OverlayLook, ScratchLook, overlay_looks
from layerfs.errors import MountError
from layerfs.host import mounts
from layerfs.host.occupants import Device, named, read_occupants
from layerfs.settings import Settings
from layerfs.status import LookedAt, Status, Underway
from layerfs.view.texts import human_size

_SHOWN_ERRORS: Final = 5
_SHOWN_LAYERS: Final = 10
_COUNTING_LOOKS: Final = 5
_COUNTING_SECONDS: Final = 0.1
"""How often a daemon is asked again that has begun to count files, and after how long."""


class Look(msgspec.Struct, frozen=True):
    """One mount and how its daemon is."""

    mountpoint: str
    device: Device
    state: Literal["serving", "hanging", "dead", "unreadable"]
    reason: str = ""
    """Why it is unreadable."""
    status: Status | None = None
    """What it says of itself, if it is serving."""

    def builtins(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        said = {} if self.status is None else msgspec.to_builtins(self.status)
        about = {"kind": "mount", "mountpoint": self.mountpoint, "state": self.state}
        return said | about | ({"reason": self.reason} if self.reason else {})

    def lines(self) -> list[str]:
        """Return what people read."""
        return _lines(self)


@app.verb(epilog="Example: layerfs status --json | jq -r '.[].mountpoint'")
@options.configured(*options.STORE)
def status(
    settings: Settings,
    mountpoint: Annotated[
        Path | None,
        takes.argument(metavar="MOUNTPOINT", help="Only what is there.", shell_complete=complete_mountpoint),
    ] = None,
    heal: Annotated[
        bool, takes.option("--heal", help="Before, fetch what lazy overlays wait for whose daemon is gone.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show the layerfs mounts of this machine and what they do.

    That is their store, what they fetch, recent errors with advice, and who uses them; then the overlays of
    layerfs overlay, and what their --rw left in the store, before a reboot for instance. Only root sees the
    processes of others.

    An overlay that was mounted before its image was here needs a daemon for what it has not opened yet. If
    that died, --heal, the next layerfs pull, overlay or mount of the store has all of it here, and the
    programs in it go on without being touched.

    With MOUNTPOINT the exit code is 0 only if that mount answers, or that overlay is there.
    """
    if heal:
        _heal(settings)
    found = _found(settings, mountpoint)
    devices = {one.device for one in found if one.device is not None}
    occupants = read_occupants(devices)
    users = [occupants.of(one.device) for one in found]
    if as_json:
        used = [{"used_by": [msgspec.to_builtins(user) for user in its]} for its in users]
        print_json([one.builtins() | its for one, its in zip(found, used, strict=True)])
    elif not found:
        click.echo("no layerfs mounts (layerfs mount DIRECTORY makes one)")
    else:
        for one, its in zip(found, users, strict=True):
            print_lines(one.lines() + ([f"  used by {named(its)}"] if its else []))
    if mountpoint is not None and not any(one.state in ("serving", "mounted") for one in found):
        raise click.exceptions.Exit(1)


def _heal(settings: Settings) -> None:
    """Have here what containers on the store wait for. Raises LayerfsError."""
    from layerfs.api.machinery import heal
    from layerfs.cli.running import with_provider

    healed = with_provider(settings, heal)
    if healed:
        click.echo(f"layerfs: {healed} layers that lazy overlays waited for are here", err=True)


def print_lines(lines: Sequence[str]) -> None:
    """Print lines, each with its indent also where a terminal breaks it."""
    for line in lines:
        text = line.lstrip(" ")
        indent = " " * (len(line) - len(text))
        print_text(text, indent, f"{indent}    ", squeezed=True)


def _found(settings: Settings, wanted: Path | None) -> list[Look | OverlayLook | ScratchLook]:
    """Return what there is, of *wanted* alone if given. Raises MountError if nothing of ours is there."""
    table = [mount for mount in mounts.read_mounts() if mount.root == b"/"]
    served = _served(table)
    if wanted is None:
        return [*map(_look, served.values()), *overlay_looks(settings, table)]
    # By the text first: what resolves a path asks a daemon that may hang.
    point = os.path.abspath(os.fsencode(wanted))  # noqa: PTH100 - bytes, as the kernel has them
    if point not in served:
        point = os.path.realpath(point)
    if point in served:
        return [_look(served[point])]
    found = [one for one in overlay_looks(settings, table) if one.mountpoint == os.fsdecode(point)]
    if not found:
        raise MountError(f"{wanted}: no layerfs mount (layerfs status lists them)")
    return [*found]


def looks_at_mounts() -> list[Look]:
    """Return how the layerfs mounts of this mount namespace are. Raises OSError."""
    return [*map(_look, _served(mounts.read_mounts()).values())]


def _served(table: list[mounts.Mount]) -> dict[bytes, mounts.Mount]:
    """Return the layerfs mounts of *table* by where they are, at each point the topmost."""
    return {mount.point: mount for mount in table if mount.is_layerfs and mount.root == b"/"}


def _look(mount: mounts.Mount) -> Look:
    """Return what a mount says of itself, and its state."""
    look = partial(Look, os.fsdecode(mount.point), mount.device)
    try:
        return look("serving", status=_counted(mount))
    except TimeoutError:
        return look("hanging")
    except (OSError, msgspec.DecodeError, RecursionError) as exc:
        if getattr(exc, "errno", None) == ENOTCONN:
            return look("dead")
        return look("unreadable", reason=str(getattr(exc, "strerror", None) or exc))


def _counted(mount: mounts.Mount) -> Status:
    """Return what a mount says once the files of its lazy layers are counted, if that takes a moment only."""
    status = read_status(mount)
    for _ in range(_COUNTING_LOOKS):
        if all(one.state != "toc" or one.here is not None for one in status.looked_at):
            break
        time.sleep(_COUNTING_SECONDS)
        status = read_status(mount)
    return status


def _lines(look: Look) -> list[str]:
    point = look.mountpoint
    match look.state:
        case "dead":
            return [f"{point}: dead, its daemon has ended (layerfs umount {point})"]
        case "hanging":
            return [f"{point}: no answer within {STATUS_SECONDS:g} s (is its daemon stopped?)"]
    about = look.status
    if about is None:
        return [f"{point}: {look.reason} (only the user who mounted it may look)"]
    offline = ", offline" if about.offline else ""
    alone = " to lazy overlays, until none is mounted" if serves_bells_alone(point) else ""
    lines = [f"{point}: serving {about.store}{alone} (pid {about.pid}, {about.platform}{offline})"]
    if about.waiting:
        lines.append(f"  {about.waiting} waiting")
    lines += [f"  {_fetch_line(one)}" for one in about.fetching]
    lines += [f"  {layer_line(one)}" for one in about.looked_at[-_SHOWN_LAYERS:]]
    if len(about.looked_at) > _SHOWN_LAYERS:
        lines.append(f"  and {len(about.looked_at) - _SHOWN_LAYERS} layers before them (--json has all)")
    for failure in about.errors[-_SHOWN_ERRORS:]:
        when = datetime.fromtimestamp(failure.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"  {when}  {failure.what}: {failure.message}")
        if hint := advice(failure.error, failure.message):
            lines.append(f"    {hint}")
    return lines


def _fetch_line(one: Underway) -> str:
    share = f" ({100 * one.received // one.size} %)" if one.size else ""
    seconds = max(0.0, time.time() - one.since)
    return (
        f"{one.phase} {one.repository}@{one.digest}: {human_size(one.received)} of "
        f"{human_size(one.size)}{share}, {seconds:.0f} s"
    )


def layer_line(one: LookedAt) -> str:
    """Say how much is here of a layer that was looked at before it was whole."""
    name = f"{one.repository}@{one.digest}" if one.repository else one.digest
    if one.state == "fetched":
        return f"whole {name}" + (f" (not lazy: {one.whole_because})" if one.whole_because else "")
    if one.whole_because:
        return f"not here {name} (not lazy: {one.whole_because})"
    if one.state == "absent":
        return f"not here {name}"
    if one.here is None:
        return f"lazy {name}: its files are listed"
    here = one.here
    return (
        f"lazy {name}: {here.files} of {here.of_files} files, "
        f"{human_size(here.bytes)} of {human_size(here.of_bytes)}"
    )
