"""``layerfs mount`` and ``layerfs umount``."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerfs.cli import logs, mountoptions, options
from layerfs.cli.app import app
from layerfs.cli.completion import complete_mountpoint
from layerfs.config import Level
from layerfs.errors import MountError, UsageError
from layerfs.host import mounts, readiness
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.local.name import SourceName
    from layerfs.local.origin import LocalOrigin

Places = Annotated[
    list[str],
    typer.Argument(
        metavar="[SOURCE] MOUNTPOINT",
        help="An existing directory; before it a local image to serve in place, oci:DIR[:TAG] for instance.",
    ),
]
Registries = Annotated[
    str | None,
    typer.Option(
        "--registries",
        metavar="HOST,...",
        help="Contact only these (default: any, with --allow-other those with a login or configuration).",
    ),
]
MountOptions = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="OPTIONS", help="As mount(8) and fstab give them, with commas between."),
]
FetchTimeout = Annotated[
    float | None,
    typer.Option(
        "--fetch-timeout",
        metavar="SECONDS",
        min=1,
        help="How long one access waits for a fetch (default: 900).",
    ),
]
TagTtl = Annotated[
    float | None,
    typer.Option(
        "--tag-ttl",
        metavar="SECONDS",
        min=1,
        help="Ask the registry again what a tag means after this long (default: never; see pull).",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Log to FILE; without -f /var/log/layerfs.log for root."),
]


@app.command(epilog="Example: layerfs mount ~/oci && cat ~/oci/images/docker.io/library/alpine:3.20/lowerdir")
@options.configured(*options.FETCHING)
def mount(
    settings: Settings,
    places: Places,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay in the foreground; Ctrl-C unmounts.")
    ] = False,
    allow_other: Annotated[
        bool | None, typer.Option("--allow-other/--private", help="Let other users read the mount.")
    ] = None,
    registries: Registries = None,
    mount_options: MountOptions = None,
    fetch_timeout: FetchTimeout = None,
    tag_ttl: TagTtl = None,
    log_level: Annotated[
        Level | None,
        typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning, error (info)."),
    ] = None,
    log_json: Annotated[
        bool | None, typer.Option("--log-json/--log-text", help="Log one JSON object a line.")
    ] = None,
    log_file: LogFile = None,
) -> None:
    """Mount the image store at MOUNTPOINT. Returns once the mount answers.

    With SOURCE (oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:DIR) its images are served instead,
    from where they lie, and no registry is asked; what is extracted goes into local/ of the store.
    """
    words = mountoptions.parse(mount_options or ())
    named = None if registries is None else frozenset(filter(None, registries.split(",")))
    given = {
        "registries": named,
        "mount_options": words.kernel,
        "fetch_timeout": fetch_timeout,
        "tag_ttl": tag_ttl,
        "allow_other": allow_other,
        "log_level": log_level,
        "log_json": log_json,
        "log_file": log_file,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(settings, **(words.settings | chosen))
    source, mountpoint = _places(places)
    mounts.clean_up(mountpoint)  # a dead mount answers no question about its directory
    where = Path(os.path.realpath(mountpoint))
    if not where.is_dir():
        raise MountError(f"{mountpoint}: not a directory (expected an existing one; mkdir it first)")
    local = None
    if source is not None:
        from layerfs.app import open_bundle

        settings, local = open_bundle(settings, source)
    if foreground:
        _in_foreground(settings, local, where, log_file)
    else:
        _in_background(settings, local, where)


@app.command(epilog="Example: layerfs umount ~/oci")
def umount(
    mountpoint: Annotated[
        Path,
        typer.Argument(metavar="MOUNTPOINT", help="Where it is mounted.", autocompletion=complete_mountpoint),
    ],
    lazy: Annotated[
        bool, typer.Option("--lazy", "-l", help="Detach it now, even while it is in use.")
    ] = False,
) -> None:
    """Unmount MOUNTPOINT; a dead mount too."""
    found = mounts.mounts_at(mountpoint)
    if not found:
        raise MountError(f"{mountpoint}: nothing is mounted there")
    if not found[-1].is_layerfs:
        kind = os.fsdecode(found[-1].fstype)
        raise MountError(f"{mountpoint}: a {kind} mount, not one of layerfs (use umount)")
    mounts.unmount(mountpoint, lazy=lazy)


def _in_foreground(
    settings: Settings, local: "LocalOrigin | None", mountpoint: Path, log_file: Path | None
) -> None:
    if log_file:
        logs.log_to_file(log_file, settings.log_level, as_json=settings.log_json)
    else:
        logs.log_to_stderr(settings.log_level, as_json=settings.log_json)
    _serve(settings, local, mountpoint, lambda: readiness.notify("READY=1"))


def _in_background(settings: Settings, local: "LocalOrigin | None", mountpoint: Path) -> None:
    """Return once the mount answers. Raises MountError."""

    def work(ready: Callable[[], None]) -> None:
        file = settings.log_file or logs.default_log_file(os.environ, os.getuid())
        logs.log_to_file(file, settings.log_level, as_json=settings.log_json)

        def announce() -> None:
            readiness.leave_terminal()
            ready()

        _serve(settings, local, mountpoint, announce)

    failure = readiness.run_in_background(work)
    if failure is not None:
        raise MountError(failure)


def _places(places: list[str]) -> "tuple[SourceName | None, Path]":
    """Tell SOURCE and MOUNTPOINT apart. Raises UsageError, InvalidReference."""
    if len(places) > 2:
        raise UsageError(f"{len(places)} arguments (expected [SOURCE] MOUNTPOINT)")
    if len(places) == 1:
        return None, Path(places[0])
    from layerfs.local.name import SourceName

    return SourceName.parse(places[0]), Path(places[1])


def _serve(
    settings: Settings, local: "LocalOrigin | None", mountpoint: Path, ready: Callable[[], None]
) -> None:
    """Run the daemon in this process until it ends; only now are trio and pyfuse3 imported."""
    import trio

    from layerfs import app as wiring

    trio.run(wiring.serve, settings, mountpoint, ready, local)
