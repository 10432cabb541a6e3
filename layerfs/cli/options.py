"""Options that several verbs share, with one meaning everywhere, and the Settings they add up to.

A verb asks for a group of them with `configured`; it is then called with ``settings`` and its own arguments.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from layerfs.cli import mountoptions, takes
from layerfs.cli.asking import ask_password
from layerfs.cli.completion import complete_reference
from layerfs.config import settings_of
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.settings import ACCESS_ROWS, ROWS, SERVE_ROWS, Access, Settings

Reference = Annotated[
    str,
    takes.argument(
        metavar="REFERENCE",
        help="[REGISTRY/]NAME[:TAG][@DIGEST], or 12 digits or more of a digest in the store",
        shell_complete=complete_reference,
    ),
]
References = Annotated[
    list[str],
    takes.argument(
        metavar="REFERENCE",
        help="[REGISTRY/]NAME[:TAG][@DIGEST], or 12 digits or more of a digest in the store",
        shell_complete=complete_reference,
    ),
]
WORDS: Final = "mount_options"
Json = Annotated[bool, takes.option("--json", help="Print JSON for scripts.")]

STORE: Final = ("store", "store_owner")
REGISTRY: Final = ("insecure_registries", "authfile", *(name for name in ACCESS_ROWS if name != "creds"))
ASKING: Final = (*REGISTRY, "creds")
FETCHING: Final = (*STORE, "platform", *ASKING, "offline", "max_bandwidth")
FILLING: Final = (*FETCHING, "share_store")
SERVING: Final = (
    *(name for name in FETCHING if name in ROWS),
    *(name for name, row in ROWS.items() if row.flags and not row.variable and name not in FETCHING),
    WORDS,
)
"""Whatever has an option, and ``-o``: what a mount may be told. It is no call, so it has none of `Access`."""
DISTRIBUTING: Final = (
    *STORE,
    *SERVE_ROWS,
    *("platform", "insecure_registries", "authfile", "registries", "offline", "fetch_timeout"),
    *("max_size", "min_free", "log_level", "log_json"),
)
"""What `layerfs serve` may be told; what is about registries counts with ``--fetch``."""
_TABLE: Final = {**ROWS, **ACCESS_ROWS, **SERVE_ROWS}


def _option(name: str) -> Any:
    """Return the annotation that makes the option of a field of Settings."""
    if name == WORDS:
        about = f"As mount(8) and fstab give them, with commas between. Of layerfs: {mountoptions.known()}."
        return Annotated[list[str] | None, takes.option("-o", metavar="OPTIONS", help=about)]
    row = _TABLE[name]
    return Annotated[
        row.kind.option | None,
        takes.option(
            row.flags,
            metavar=row.metavar,
            envvar=row.variable,
            least=row.kind.least,
            help=row.help or row.about,
        ),
    ]


class Said:
    """What the options of a call say; the configuration below them may be read more than once."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Read the values of options. Raises InvalidSettings, UsageError."""
        said = {name: value for name, value in given.items() if value is not None and value != []}
        self._words = mountoptions.parse(said.pop(WORDS, ()))
        read = {name: _TABLE[name].kind.of_option(value, _TABLE[name].flags) for name, value in said.items()}
        self._access = _complete(Access(**{name: read.pop(name) for name in ACCESS_ROWS if name in read}))
        self._serve = {name: read.pop(name) for name in SERVE_ROWS if name in read}
        self._weak = {name: value for name, value in read.items() if ROWS[name].variable}
        self._strong = {name: value for name, value in read.items() if name not in self._weak}

    def settings(self, environ: Mapping[str, str] = os.environ) -> Settings:
        """Put them over what the configuration files say by now. Raises InvalidSettings.

        A word of ``-o`` stands between the options that a variable may stand for and those that have none.
        """
        found = settings_of(environ, os.getuid(), namespace=not in_initial_user_namespace())
        serve = msgspec.structs.replace(found.serve, **self._serve)
        more = {"mount_options": self._words.kernel, "access": self._access, "serve": serve}
        return msgspec.structs.replace(found, **(self._weak | self._words.settings | self._strong | more))


def configured(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of the fields *names* of Settings; it gets ``settings``, its first parameter.

    One whose first parameter is called ``said`` gets `Said` instead, to read the configuration again later.
    What it takes are the verb's own other parameters and these.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        first, *own = takes.signature(verb)

        @functools.wraps(verb)
        def wrapper(**values: Any) -> None:
            said = Said({name: values.pop(name) for name in names})
            verb(said if first.name == "said" else said.settings(), **values)

        takes.said_to_take(wrapper, [*own, *(takes.Parameter(name, _option(name), None) for name in names)])
        return wrapper

    return decorate


def _complete(access: Access) -> Access:
    """Ask for a password that was not said. Raises UsageError."""
    login = access.creds
    if login is None or login.password is not None:
        return access
    return msgspec.structs.replace(
        access, creds=msgspec.structs.replace(login, password=ask_password(f"--creds {login.username}"))
    )
