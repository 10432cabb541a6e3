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
from layerfs.errors import InvalidSettings, LayerfsError

config_app = Verbs(
    "config",
    help="Check the configuration files, or show what is in force.",
    epilog="Files: /etc/layerfs/config.toml, then $XDG_CONFIG_HOME/layerfs/config.toml; see layerfs.toml(5).",
    no_args_is_help=True,
)
app.add_command(config_app)


@config_app.verb(epilog="Example: layerfs config check docker.io/library/alpine")
def check(
    arguments: Annotated[
        list[str] | None,
        takes.argument(
            metavar="FILE|REFERENCE", help="Files to check (default: those in use), or names of images."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check configuration files, or say which servers are asked for an image, in which order, and why.

    An error names file, key and line. Without an argument the files of podman and containerd that name
    mirrors are checked too. An argument that exists, or begins with / or ., is a file.
    """
    images = [one for one in arguments or () if not _is_file(one)]
    paths = [Path(one) for one in arguments or () if _is_file(one)]
    code = 0 if images and not paths else _check_files(paths, as_json=as_json)
    if images or not arguments:
        code = _check_mirrors(images, as_json=as_json) or code
    raise click.exceptions.Exit(code)


def _is_file(text: str) -> bool:
    return text.startswith(("/", ".")) or Path(text).exists()


def _check_files(paths: list[Path], *, as_json: bool) -> int:
    """Read configuration files and print what is wrong with them; return the exit code."""
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
        if found and not as_json:
            click.echo(f"{path}: ok")
        seen += found
    if not seen and not code and not as_json:
        click.echo(f"no configuration file (looked for {', '.join(map(str, wanted))})")
    return code


def _check_mirrors(images: list[str], *, as_json: bool) -> int:
    """Read who stands before registries and print who is asked for *images*; return the exit code."""
    from layerfs import naming
    from layerfs.app import registry_settings
    from layerfs.cli import asked

    code, found = 0, []
    try:
        settings = asked.current_settings()
        policy = registry_settings(settings).policy
    except InvalidSettings as error:
        return report(error)
    for image in images:
        try:
            reference = naming.reference(settings, image)
            if as_json:
                found.append(asked.as_json(policy, reference))
            else:
                asked.show(policy, reference)
        except LayerfsError as error:
            code = code or report(error)
    if as_json:
        print_json(found)
    return code


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
