"""The Typer application that the verbs hang on, and the options that every verb shares."""

from typing import Annotated

import typer

import layerfs
from layerfs.cli.completion import completion

app = typer.Typer(
    name="layerfs",
    help="Mount OCI images as a read-only tree: fetched on first access, verified, ready for overlayfs.",
    epilog="Example: layerfs mount ~/oci && ls ~/oci/images/docker.io/library/alpine:3.20/layers/00/diff",
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
) -> None:
    """Mount OCI images as a read-only tree: fetched on first access, verified, ready for overlayfs."""


app.command(epilog="Example: layerfs completion bash > layerfs.bash")(completion)


def load_verbs() -> None:
    """Import the modules of all verbs: each registers itself on `app`."""
    from layerfs.cli import (  # noqa: F401 - imported for their decorators
        df,
        export,
        images,
        importing,
        inspect,
        lower,
        mount,
        pull,
        status,
        tree,
    )
