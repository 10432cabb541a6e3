"""``layerfs config``: check the configuration files, show what is in force."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from layerfs import config as files
from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.failures import report
from layerfs.cli.helping import Verbs
from layerfs.cli.output import print_json
from layerfs.cli.sample import sample, toml
from layerfs.errors import InvalidSettings

config_app = typer.Typer(
    cls=Verbs,
    help="Check the configuration files, or show what is in force.",
    epilog="Files: /etc/layerfs/config.toml, then $XDG_CONFIG_HOME/layerfs/config.toml; see layerfs.toml(5).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(config_app, name="config")


@config_app.command(epilog="Example: layerfs config check")
def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Files to check (default: those in use).")
    ] = None,
) -> None:
    """Check configuration files; an error names file, key and line."""
    wanted = paths or files.places(os.environ)
    code = seen = 0
    for path in wanted:
        try:
            found = files.read(path) is not None
            if not found and paths:
                raise InvalidSettings(f"{path}: no such file")
        except InvalidSettings as error:
            code = report(error)
            continue
        if found:
            seen += 1
            typer.echo(f"{path}: ok")
    if not seen and not code:
        typer.echo(f"no configuration file (looked for {', '.join(map(str, wanted))})")
    raise typer.Exit(code)


@config_app.command(epilog="Example: layerfs config show --json")
def show(as_json: options.Json = False) -> None:
    """Show what the configuration files set, and which file says so. Flags and variables are stronger."""
    merged: dict[str, dict[str, Any]] = {}
    for path, key, value in files.values(files.load(os.environ)):
        merged[key] = {"value": value, "file": str(path)}
    if as_json:
        print_json(merged)
        return
    for key, entry in merged.items():
        typer.echo(f"{key} = {toml(entry['value'])}  # {entry['file']}")
    if not merged:
        typer.echo("nothing is configured: all defaults (layerfs.toml(5) lists the keys)")


@config_app.command(epilog="Example: layerfs config example > ~/.config/layerfs/config.toml")
def example() -> None:
    """Print a configuration file with every key, explained and commented out."""
    typer.echo(sample(), nl=False)
