"""The Typer application that the verbs hang on, and the options that every verb shares."""

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final

import typer

import layerfs
from layerfs.cli import values
from layerfs.cli.completion import completion
from layerfs.cli.helping import Program, Verb
from layerfs.config import VARIABLE

values.install()

app = typer.Typer(
    name="layerfs",
    cls=Program,
    help="Mount OCI images as a read-only tree: fetched on first access, verified, ready for overlayfs.",
    epilog="Example: layerfs mount ~/oci && ls ~/oci/images/docker.io/library/alpine:3.20/rootfs/",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"layerfs {layerfs.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    config_file: Annotated[
        Path | None,
        typer.Option(
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


app.command(epilog="Example: layerfs completion bash > layerfs.bash")(completion)

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
    "status": "status",
    "tree": "tree",
    "changes": "tree",
    "verify": "verify",
}
"""The module of `layerfs.cli` that each verb is in."""


def load_verbs(wanted: str = "") -> None:
    """Import the modules of the verbs, each of which registers itself on `app`: all, or that of one verb.

    Whatever is not the name of a verb stands for all of them.
    """
    chosen = [VERBS[wanted]] if wanted in VERBS else dict.fromkeys(VERBS.values())
    for module in chosen:
        import_module(f"layerfs.cli.{module}")
    groups = (group.typer_instance for group in app.registered_groups)
    for command in (
        *app.registered_commands,
        *(one for group in groups if group for one in group.registered_commands),
    ):
        command.cls = Verb
