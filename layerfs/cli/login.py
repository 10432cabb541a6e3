"""``layerfs login`` and ``layerfs logout``: credentials where podman, skopeo and docker read them, too."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.asking import ask
from layerfs.cli.output import print_line
from layerfs.errors import Denied, NotFound, UsageError
from layerfs.foreign import printable
from layerfs.oci.reference import DEFAULT_REGISTRY, is_registry
from layerfs.settings import Settings
from layerfs.settings.kinds import UserPassword

if TYPE_CHECKING:
    from layerfs.registry.client import RegistryClient

Registry = Annotated[str, takes.argument(metavar="REGISTRY", help="HOST[:PORT]; docker.io is Docker Hub")]

_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "hub.docker.com"})


@app.verb(epilog="Example: pass show registry | layerfs login ghcr.io --username me --password-stdin")
@options.configured(*options.REGISTRY, "offline")
def login(
    settings: Settings,
    registry: Registry,
    username: Annotated[
        str | None, takes.option("--username", "-u", metavar="NAME", help="User name.")
    ] = None,
    password: Annotated[
        str | None,
        takes.option("--password", "-p", metavar="WORD", help="Password; all users can see it meanwhile."),
    ] = None,
    password_stdin: Annotated[
        bool, takes.option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    get_login: Annotated[
        bool, takes.option("--get-login", help="Print the user name that is kept for REGISTRY instead.")
    ] = False,
) -> None:
    """Check a user name and password at REGISTRY, and keep them for it.

    They are written where podman and docker look too: --authfile, $REGISTRY_AUTH_FILE, $DOCKER_CONFIG or the
    auth.json of podman. With --offline they are not checked. A terminal is asked for what is not given.
    """
    from layerfs.registry.logins import require_user_name, save_login

    host = _host(registry)
    if get_login:
        click.echo(_user_of(settings, host))
        return
    path = _file(settings, host)
    name = username or _ask("Username")
    password = _password(password, from_stdin=password_stdin)
    if not settings.offline:
        _check(settings, host, UserPassword(require_user_name(name), password))
    save_login(path, _key(host, path), name, password)
    click.echo(f"logged in to {host} as {name}; kept in {path}{_until_boot(path)}")


@app.verb(epilog="Example: layerfs logout ghcr.io")
@options.configured("authfile")
def logout(
    settings: Settings,
    registry: Annotated[
        str | None, takes.argument(metavar="REGISTRY", help="HOST[:PORT]; docker.io is Docker Hub")
    ] = None,
    every: Annotated[bool, takes.option("--all", "-a", help="Forget all logins of the file.")] = False,
) -> None:
    """Forget the user name and password for REGISTRY."""
    from layerfs.registry import RegistrySettings
    from layerfs.registry.logins import login_file, remove_all_logins, remove_login

    if (registry is None) != every:
        raise UsageError("logout: name a registry, or say --all (expected one of the two)")
    if registry is None:
        path = login_file(RegistrySettings(authfile=settings.authfile))
        for one in remove_all_logins(path):
            print_line(f"removed the login for {one} from {path}")
        return
    host = _host(registry)
    path = _file(settings, host)
    if not remove_login(path, host):
        raise NotFound(f"{host}: not logged in (no login for it in {path})")
    click.echo(f"removed the login for {host} from {path}")


def _until_boot(path: Path) -> str:
    """Say that a login goes with the next boot, if its file lies in the directory of what does (hier(7))."""
    if not path.resolve().is_relative_to("/run"):
        return ""
    return " until the next boot (--authfile FILE, or authfile = in the configuration, keeps it)"


def _host(text: str) -> str:
    """Return the host of what people paste. Raises UsageError."""
    host = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    if not is_registry(host):
        raise UsageError(f"not a registry: {text[:200]!r} (expected HOST or HOST:PORT, ghcr.io for instance)")
    return DEFAULT_REGISTRY if host in _HUB_NAMES else host


def _file(settings: Settings, host: str) -> Path:
    """Return the file that logins go to. Raises UsageError where a helper program decides instead."""
    from layerfs.registry import RegistrySettings
    from layerfs.registry.credentials import helper_program
    from layerfs.registry.keychain import read_authfile
    from layerfs.registry.logins import login_file

    path = login_file(RegistrySettings(authfile=settings.authfile))
    file = read_authfile(path)
    helper = file.helper_for(host) if file else None
    if helper:
        raise UsageError(f"{host}: {path} says that {helper_program(helper)} keeps its logins; use that")
    return path


def _user_of(settings: Settings, host: str) -> str:
    """Return the name of the user whose login would be used. Raises NotFound."""
    import trio

    from layerfs.registry import RegistrySettings
    from layerfs.registry.keychain import Keychain

    keychain = Keychain(RegistrySettings(authfile=settings.authfile))
    found = trio.run(keychain.find, host, "")
    if found.credential is None:
        raise NotFound(f"{host}: not logged in: {found.note} (layerfs login {host})")
    if not found.credential.username:
        raise NotFound(f"{host}: no user name: {found.credential}")
    return printable(found.credential.username)


def _key(host: str, path: Path) -> str:
    """Return the key that the readers of *path* look for: docker has a name of its own for its hub."""
    from layerfs.registry.credentials import helper_server

    return helper_server(host) if path.name == "config.json" else host


def _check(settings: Settings, host: str, said: UserPassword) -> None:
    """Let the registry judge. Raises Denied, RegistryError."""
    from layerfs.cli.running import with_client

    async def work(client: "RegistryClient") -> None:
        await client.check_login(host)

    try:
        access = msgspec.structs.replace(settings.access, creds=said)
        with_client(msgspec.structs.replace(settings, access=access), work)
    except Denied as exc:  # it goes on with where the login was looked for, which is here
        text, _, _ = str(exc).partition(", used ")
        why = "wrong user name or password for" if "status 401" in text else "not let in:"
        raise Denied(f"{why} {said.username!r}: {text}; nothing was kept") from exc


def _password(given: str | None, *, from_stdin: bool) -> str:
    """Return the password. Raises UsageError."""
    if given is not None:
        if from_stdin:
            raise UsageError("--password and --password-stdin (expected one of the two)")
        password = given
    elif from_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    else:
        password = _ask("Password", hidden=True)
    if not password:
        raise UsageError("empty password")
    return password


def _ask(what: str, *, hidden: bool = False) -> str:
    return ask(what, f"no {what.lower()} (say --username NAME --password-stdin", hidden=hidden)
