"""The Typer application that the verbs hang on, and the options that every verb shares."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

import layerfs
from layerfs.cli.completion import completion
from layerfs.config import VARIABLE

VERBATIM: Final = "\b\n"
"""In front of a paragraph of help: its lines are not wrapped, so that examples can be copied."""

app = typer.Typer(
    name="layerfs",
    help="Mount OCI images as a read-only tree: fetched on first access, verified, ready for overlayfs.",
    epilog=f"{VERBATIM}Example: layerfs mount ~/oci && ls ~/oci/images/docker.io/library/alpine:3.20/rootfs/",
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


def load_verbs() -> None:
    """Import the modules of all verbs: each registers itself on `app`."""
    from layerfs.cli import (  # noqa: F401 - imported for their decorators
        config,
        df,
        export,
        images,
        importing,
        inspect,
        login,
        lower,
        manual,
        mount,
        overlay,
        pull,
        status,
        tree,
    )

    for command in (*app.registered_commands, *config.config_app.registered_commands):
        command.epilog = VERBATIM + (command.epilog or "").removeprefix(VERBATIM)
