"""The program that the verbs hang on, and the options that stand in front of each verb."""

import os
from pathlib import Path
from typing import Annotated, Final

import click

import layerfs
from layerfs.cli import takes
from layerfs.cli.completion import completion
from layerfs.cli.helping import Program
from layerfs.config import VARIABLE

VERBS: Final = {
    "config": "config",
    "df": "df",
    "doctor": "doctor",
    "events": "events",
    "export": "export",
    "images": "images",
    "gc": "removal",
    "push": "push",
    "rm": "removal",
    "import": "importing",
    "inspect": "inspect",
    "history": "inspect",
    "digest": "inspect",
    "tags": "inspect",
    "lease": "lease",
    "login": "login",
    "logout": "login",
    "lowerdir": "lower",
    "man": "manual",
    "mount": "mount",
    "umount": "mount",
    "overlay": "overlay",
    "pull": "pull",
    "save": "save",
    "serve": "serve",
    "status": "status",
    "tree": "tree",
    "changes": "tree",
    "verify": "verify",
}
"""The module of `layerfs.cli` that each verb is in."""


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"layerfs {layerfs.__version__}")
        ctx.exit()


def root(
    version: Annotated[
        bool, takes.option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    config_file: Annotated[
        Path | None,
        takes.option(
            "--config",
            metavar="FILE",
            envvar=VARIABLE,
            help="Read this configuration file only (see layerfs config).",
        ),
    ] = None,
) -> None:
    """Mount OCI images as a read-only tree: fetched on first access, verified, ready for overlayfs."""
    if config_file is not None:
        os.environ[VARIABLE] = str(config_file)


app = Program(
    root,
    {verb: f"layerfs.cli.{module}" for verb, module in VERBS.items()},
    epilog="Example: layerfs mount ~/oci && ls ~/oci/images/docker.io/library/alpine:3.20/rootfs/",
)
app.verb(epilog="Example: layerfs completion bash > layerfs.bash")(completion)
