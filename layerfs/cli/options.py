"""Options that several verbs share, with one meaning everywhere, and the settings they add up to."""

import os
from pathlib import Path
from typing import Annotated

import typer

from layerfs.oci import Platform
from layerfs.settings import Settings, absolute, default_store

Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        envvar="LAYERFS_STORE",
        help="Where layers are kept (default: /var/lib/layerfs for root, ~/.local/share/layerfs otherwise).",
    ),
]
PlatformOption = Annotated[
    str | None,
    typer.Option("--platform", metavar="OS/ARCH[/VARIANT]", help="Choose this platform of an index."),
]
InsecureRegistry = Annotated[
    list[str] | None,
    typer.Option(
        "--insecure-registry",
        metavar="HOST[:PORT]",
        help="Speak plain HTTP to this registry (loopback ones always). May be repeated.",
    ),
]
Authfile = Annotated[
    Path | None,
    typer.Option(
        "--authfile", metavar="FILE", help="Read credentials from this file only, as podman and skopeo do."
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Contact no registry; use what the store has.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def make_settings(
    *,
    store: Path | None = None,
    platform: str | None = None,
    insecure_registries: list[str] | None = None,
    authfile: Path | None = None,
    offline: bool = False,
    fetch_timeout: float = 900.0,
    allow_other: bool = False,
) -> Settings:
    """Turn option values into Settings. Raises InvalidSettings."""
    return Settings(
        store=absolute(store, "--store") if store else default_store(os.environ, os.getuid()),
        platform=Platform.parse(platform) if platform else Platform.of_this_machine(),
        insecure_registries=frozenset(insecure_registries or ()),
        authfile=authfile,
        offline=offline,
        fetch_timeout=fetch_timeout,
        allow_other=allow_other,
    )
