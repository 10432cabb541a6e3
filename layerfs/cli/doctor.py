"""``layerfs doctor``: what on this machine helps, or stands in the way, and the command that mends it."""

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import click
import msgspec

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.output import print_json, print_text
from layerfs.doctor.observation import Observation, State, failure, ok, worst
from layerfs.errors import LayerfsError
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.registry.client import RegistryClient

_COLOURS: Final[dict[State, str]] = {"ok": "green", "warning": "yellow", "failure": "red"}


@app.verb(epilog="Example: layerfs doctor --registry docker.io")
@options.configured(*options.STORE, *options.REGISTRY)
def doctor(
    settings: Settings,
    asked: Annotated[
        list[str] | None,
        takes.option(
            "--registry", metavar="HOST", help="Ask this registry, too; may be given several times."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check what layerfs needs of this machine, and say how to mend it.

    That is FUSE, overlayfs, the store and its disk, limits, the clock, logins, old mounts. Each line is ok, a
    warning (something cannot be had here) or a failure (nothing works). What can be tried is tried, in a
    directory of its own, and undone. No registry is asked unless it is named.

    The exit code is 0 without a failure, else 1.
    """
    found: list[Observation] = []
    for one in _observations(settings, asked or []):
        found.append(one)
        if not as_json:
            _print(one)
    if as_json:
        print_json({"state": worst(found), "checks": [msgspec.to_builtins(one) for one in found]})
    if worst(found) == "failure":
        raise click.exceptions.Exit(1)


def _observations(settings: Settings, asked: list[str]) -> Iterator[Observation]:
    from layerfs import app as wiring
    from layerfs.doctor import examination

    yield from examination.of_machine()
    yield from examination.guarded("old mounts", _of_mounts)
    yield from _of_store(settings)
    yield from examination.of_registries(lambda: wiring.registry_settings(settings), os.environ)
    for registry in asked:
        yield _answer(settings, registry)


def _of_mounts() -> Iterator[Observation]:
    """Look for mounts of ours whose daemon has ended, or does not answer."""
    from layerfs.bells import STATUS_SECONDS
    from layerfs.cli.status import looks_at_mounts

    looks = sorted(looks_at_mounts(), key=lambda look: look.mountpoint)
    silent = [look for look in looks if look.state in ("dead", "hanging")]
    for look in silent:
        if look.state == "dead":
            why, mend = "dead, its daemon has ended", f"layerfs umount {look.mountpoint}"
        else:
            why = f"no answer within {STATUS_SECONDS:g} s"
            mend = "layerfs status names its daemon; is it stopped?"
        yield failure("mounts", f"{look.mountpoint}: {why}", mend)
    if not silent:
        yield ok("mounts", f"{len(looks)} of layerfs" if looks else "none of layerfs")


def _of_store(settings: Settings) -> Iterator[Observation]:
    from layerfs.cli.opening import is_store, open_store
    from layerfs.doctor import examination, stores

    if not is_store(settings.store):
        yield from stores.no_store(settings.store, None)
        return
    try:
        storage = open_store(settings, make=False)
    except LayerfsError as exc:
        yield from stores.no_store(settings.store, exc)
        return
    with storage:
        yield from examination.of_store(storage)


def _answer(settings: Settings, registry: str) -> Observation:
    """Ask one registry, with the login that would be used."""
    from layerfs.cli.running import with_client

    async def work(client: "RegistryClient") -> None:
        await client.check_login(registry)

    began = time.monotonic()
    try:
        with_client(settings, work)
    except LayerfsError as exc:
        return failure("registry", str(exc))
    return ok("registry", f"{registry} lets us in, {time.monotonic() - began:.2f} s")


def _print(one: Observation) -> None:
    state = f"{one.state:7}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        state = click.style(state, fg=_COLOURS[one.state])
    click.echo(f"{state}  ", nl=False)
    print_text(f"{one.check}: {one.found}", behind=" " * 9)
    if one.mend:
        print_text(one.mend, " " * 9 + "-> ", " " * 12)
