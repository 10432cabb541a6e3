"""``layerfs mount`` and ``layerfs umount``."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from layerfs.cli import interrupts, logs, options, takes
from layerfs.cli.app import app
from layerfs.cli.beside import served_beside
from layerfs.cli.completion import complete_mountpoint
from layerfs.cli.daemons import leave_directory, log_in_background, no_log, take_pulls
from layerfs.cli.failures import report
from layerfs.errors import MountError, UsageError
from layerfs.host import readiness
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.supervisor import NOBODY, Supervisor, here
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.cli.askers import Unmounted
    from layerfs.local.name import SourceName
    from layerfs.local.origin import LocalOrigin

Places = Annotated[
    list[str],
    takes.argument(
        metavar="[SOURCE] MOUNTPOINT",
        help="An existing directory; before it a local image to serve in place, oci:DIR[:TAG] for instance.",
    ),
]
LogFile = Annotated[
    Path | None,
    takes.option("--log-file", metavar="FILE", help="Log to FILE; without -f /var/log/layerfs.log for root."),
]

Replace = Annotated[
    bool,
    takes.option("--replace", help="Take the place of the mount that is there; what is open in it goes on."),
]


@app.verb(epilog="Example: layerfs mount ~/oci && cat ~/oci/images/docker.io/library/alpine:3.20/lowerdir")
@options.configured(*options.SERVING)
def mount(
    said: options.Said,
    places: Places,
    foreground: Annotated[
        bool, takes.option("--foreground", "-f", help="Stay in the foreground; Ctrl-C unmounts.")
    ] = False,
    log_file: LogFile = None,
    replace: Replace = False,
) -> None:
    """Mount the image store at MOUNTPOINT. Returns once the mount answers.

    SIGTERM unmounts. SIGHUP has configuration, logins and certificates read again, and unmounts only where it
    says that the terminal of -f was closed.

    With SOURCE (oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:DIR) its images are served instead,
    from where they lie, and no registry is asked; what is extracted goes into local/ of the store.
    """
    settings = said.settings()
    if log_file is not None:  # unlike log.file of a configuration it counts in the foreground, too
        settings = msgspec.structs.replace(settings, log_file=log_file)
    if settings.serve.listen is not None:
        settings.serve.require_sound(settings)
    source, mountpoint = _places(places)
    where = Mountpoint.open(mountpoint)
    where.clean_up()
    ours = (there := where.mount()) is not None and there.is_layerfs
    if not ours and where.covers_files():
        sys.stderr.write(f"layerfs: {mountpoint}: not empty; the mount hides what is in it\n")
    local = None
    if source is not None:
        from layerfs.app import open_bundle

        settings, local = open_bundle(settings, source)
    else:
        _warn_of_registries(settings)
    daemon = _Daemon(settings, said, local, where, replace and ours)
    _in_foreground(daemon, log_file) if foreground else _in_background(daemon)


@app.verb(epilog="Example: layerfs umount ~/oci")
def umount(
    mountpoints: Annotated[
        list[Path],
        takes.argument(metavar="MOUNTPOINT", help="Where it is mounted.", shell_complete=complete_mountpoint),
    ],
    lazy: Annotated[
        bool, takes.option("--lazy", "-l", help="Detach it now, even while it is in use.")
    ] = False,
    force: Annotated[
        bool, takes.option("--force", "-f", help="End its daemon, whoever waits for it or will; for root.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Unmount each MOUNTPOINT; a dead mount too. One that cannot be is told of, and the others are tried.

    Lazy overlays that ask the mount for files which are not here lose nothing: it is out of sight then, and
    its daemon goes on until the last of them is unmounted. They are named, with what is not here. --force
    ends the daemon, also one that does not answer: what they have not opened is an error from then on, until
    layerfs status --heal, the next mount, pull or lazy overlay has it here.
    """
    failures = []
    done = []
    for mountpoint in mountpoints:
        try:
            done.append(_unmount(mountpoint, lazy=lazy, force=force))
        except MountError as exc:
            failures.append(exc)
    if as_json:
        from layerfs.cli.output import print_json

        print_json([one.builtins() for one in done])
    else:
        for line in (line for one in done for line in one.lines()):
            click.echo(f"layerfs: {line}", err=True)
    for failure in failures[:-1]:
        report(failure)
    if failures:
        raise failures[-1]


def _unmount(mountpoint: Path, *, lazy: bool, force: bool) -> "Unmounted":
    with Mountpoint.open(mountpoint) as where:
        found = where.mount()
        if found is None:
            raise MountError(f"{mountpoint}: nothing is mounted there")
        if not found.is_layerfs:
            raise MountError(
                f"{mountpoint}: a mount of type {os.fsdecode(found.fstype)}, not one of layerfs (use umount)"
            )
        from layerfs.cli.askers import Unmounted, askers_of, daemon_of

        askers = askers_of(found)
        pid = daemon_of(found) if askers else None
        where.unmount(lazy=lazy, force=force)
        return Unmounted(str(where), askers, pid, force)


def _warn_of_registries(settings: Settings) -> None:
    if not settings.allow_other or settings.offline:
        return
    from layerfs.app import registries_of

    if registries_of(settings).allowed == frozenset():
        sys.stderr.write(
            "layerfs: others may enter this mount, so it contacts configured registries alone, and none is "
            "(expected --registries HOST, or a login)\n"
        )


class _Daemon(msgspec.Struct, frozen=True):
    """What is to be served where."""

    settings: Settings
    said: options.Said
    local: "LocalOrigin | None"
    mountpoint: Mountpoint
    replace: bool


def _in_foreground(daemon: _Daemon, log_file: Path | None) -> None:
    settings = daemon.settings
    if log_file:
        try:
            logs.log_to_file(log_file, settings.log_level, as_json=settings.log_json)
        except OSError as exc:
            raise no_log(log_file, exc) from exc
    else:
        logs.log_to_stderr(settings.log_level, as_json=settings.log_json)
    again = None
    if not readiness.has_terminal():  # then nothing hangs up: whoever sends SIGHUP wants a reload
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        again = daemon.said.settings
    started_by = here()
    _serve(daemon, started_by.ready, again=again, supervisor=started_by)


def _in_background(daemon: _Daemon) -> None:
    """Return once the mount answers. Raises MountError."""
    settings = daemon.settings

    def work(ready: Callable[[], None]) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        log_in_background(settings)

        def announce() -> None:
            readiness.leave_terminal()
            ready()

        _serve(daemon, announce, again=daemon.said.settings)

    with interrupts.undoing():
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
    daemon: _Daemon,
    ready: Callable[[], None],
    *,
    again: Callable[[], Settings] | None,
    supervisor: Supervisor = NOBODY,
) -> None:
    """Run the daemon in this process until it ends; only now are trio and pyfuse3 imported."""
    leave_directory()
    beside = served_beside(daemon.settings, Path(str(daemon.mountpoint)))
    with beside if daemon.local is None else nullcontext():
        from layerfs import app as wiring

        interrupts.run(
            partial(
                wiring.serve,
                daemon.settings,
                daemon.mountpoint,
                ready,
                daemon.local,
                again=again,
                supervisor=supervisor,
                replace=daemon.replace,
                beside=take_pulls if daemon.local is None else None,
            )
        )
