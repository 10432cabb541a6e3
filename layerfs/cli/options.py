"""Options that several verbs share, with one meaning everywhere, and the Settings they add up to.

A verb asks for a group of them with `configured`; it is then called with ``settings`` and its own arguments.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer

from layerfs.cli.completion import complete_reference
from layerfs.config import settings_of
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.oci import Platform
from layerfs.settings import Settings, absolute

Reference = Annotated[
    str,
    typer.Argument(
        metavar="REFERENCE", help="[REGISTRY/]NAME[:TAG][@DIGEST]", autocompletion=complete_reference
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

_SHARED: Final[dict[str, tuple[Any, Any]]] = {
    "store": (
        Annotated[
            Path | None,
            typer.Option(
                "--store",
                metavar="DIR",
                envvar="LAYERFS_STORE",
                help="Where layers are kept (default: /var/lib/layerfs, or ~/.local/share/layerfs).",
            ),
        ],
        None,
    ),
    "platform": (
        Annotated[
            str | None,
            typer.Option(
                "--platform",
                metavar="OS/ARCH[/VARIANT]",
                envvar="LAYERFS_PLATFORM",
                help="Choose this platform of an index.",
            ),
        ],
        None,
    ),
    "insecure_registry": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--insecure-registry",
                metavar="HOST[:PORT]",
                envvar="LAYERFS_INSECURE_REGISTRY",
                help="Speak plain HTTP to this registry (loopback ones always). May be repeated.",
            ),
        ],
        None,
    ),
    "authfile": (
        Annotated[
            Path | None,
            typer.Option(
                "--authfile",
                metavar="FILE",
                envvar="LAYERFS_AUTHFILE",
                help="Read credentials from this file only.",
            ),
        ],
        None,
    ),
    "offline": (
        Annotated[
            bool | None,
            typer.Option(
                "--offline/--online",
                envvar="LAYERFS_OFFLINE",
                help="Contact no registry; use what the store has.",
            ),
        ],
        None,
    ),
}
STORE: Final = ("store",)
REGISTRY: Final = ("insecure_registry", "authfile")
FETCHING: Final = (*STORE, "platform", *REGISTRY, "offline")


def configured(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the shared options *names*; it gets them as ``settings``, its first parameter.

    Typer reads signatures, so the wrapper shows one made of the verb's own parameters and the shared ones.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(verb, include_extras=True)
        own = list(inspect.signature(verb).parameters.values())[1:]
        parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        for name in names:
            annotation, default = _SHARED[name]
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))

        @functools.wraps(verb)
        def wrapper(**values: Any) -> None:
            shared = {name: values.pop(name) for name in names}
            verb(_settings(**shared), **values)

        del wrapper.__wrapped__  # inspect would look at the verb instead
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _settings(
    *,
    store: Path | None = None,
    platform: str | None = None,
    insecure_registry: list[str] | None = None,
    authfile: Path | None = None,
    offline: bool | None = None,
) -> Settings:
    """Put option values over what the configuration files say. Raises InvalidSettings."""
    given: dict[str, Any] = {}
    if store is not None:
        given["store"] = absolute(store, "--store")
    if platform is not None:
        given["platform"] = Platform.parse(platform)
    if insecure_registry:
        given["insecure_registries"] = frozenset(insecure_registry)
    if authfile is not None:
        given["authfile"] = authfile
    if offline is not None:
        given["offline"] = offline
    namespace = not in_initial_user_namespace()
    return dataclasses.replace(settings_of(os.environ, os.getuid(), namespace=namespace), **given)
