"""``layerfs lowerdir``: the native directories of an image, for overlayfs."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.output import print_json
from layerfs.oci import ImageReference
from layerfs.settings import Settings
from layerfs.view.texts import lowerdir_option

if TYPE_CHECKING:
    from layerfs.cli.running import Machinery

Format = Literal["option", "lines", "json"]


@app.command(epilog='Example: mount -t overlay overlay -o "$(layerfs lowerdir alpine:3.20)" /mnt')
@options.configured(*options.FETCHING)
def lowerdir(
    settings: Settings,
    reference: options.Reference,
    format_: Annotated[Format, typer.Option("--format", help="How to print the directories.")] = "option",
) -> None:
    """Print the native lower directories of an image, topmost first, fetching it before.

    With --offline nothing is fetched, and a missing layer is an error.
    """
    from layerfs.cli.running import fetch_stack, image_of, manifest_of, pinned, with_provider

    parsed = ImageReference.parse(reference)

    async def work(machinery: "Machinery") -> list[str]:
        manifest = await manifest_of(machinery, parsed, await pinned(machinery, parsed))
        return await fetch_stack(machinery, parsed, image_of(machinery, manifest))

    paths = with_provider(settings, work)
    if format_ == "json":
        print_json(paths)
    elif format_ == "lines":
        typer.echo("\n".join(paths))
    else:
        typer.echo(os.fsdecode(lowerdir_option(map(os.fsencode, paths))))
