"""``layerfs config``: check the configuration files, show what is in force."""

import os
from pathlib import Path
from typing import Annotated, Any

import click

from layerfs import config as files
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.failures import report
from layerfs.cli.helping import Verbs
from layerfs.cli.output import print_json
from layerfs.cli.sample import sample, toml
from layerfs.errors import InvalidSettings

config_app = Verbs(
    "config",
    help="Check the configuration files, or show what is in force.",
    epilog="Files: /etc/layerfs/config.toml, then $XDG_CONFIG_HOME/layerfs/config.toml; see layerfs.toml(5).",
    no_args_is_help=True,
)
app.add_command(config_app)


@config_app.verb(epilog="Example: layerfs config check")
def check(
    paths: Annotated[
        list[Path] | None, takes.argument(metavar="FILE", help="Files to check (default: those in use).")
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
            click.echo(f"{path}: ok")
    if not seen and not code:
        click.echo(f"no configuration file (looked for {', '.join(map(str, wanted))})")
    raise click.exceptions.Exit(code)


@config_app.verb(epilog="Example: layerfs config show --json")
def show(as_json: options.Json = False) -> None:
    """Show what the configuration files set, and which file says so. Flags and variables are stronger."""
    merged: dict[str, dict[str, Any]] = {}
    for path, key, value in files.values(files.load(os.environ)):
        merged[key] = {"value": value, "file": str(path)}
    if as_json:
        print_json(merged)
        return
    for key, entry in merged.items():
        click.echo(f"{key} = {toml(entry['value'])}  # {entry['file']}")
    if not merged:
        click.echo("nothing is configured: all defaults (layerfs.toml(5) lists the keys)")


@config_app.verb(epilog="Example: layerfs config example > config.toml")
def example() -> None:
    """Print a configuration file with every key, explained and commented out."""
    click.echo(sample(), nl=False)
