"""``layerfs lowerdir``: the native directories of an image, for overlayfs."""

import os
from typing import TYPE_CHECKING, Annotated, Final, Literal

import click

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.native import use_native_stack
from layerfs.cli.opening import reference_of
from layerfs.cli.output import print_json
from layerfs.errors import UsageError
from layerfs.layer.overlayfs import fuse_lowerdir_option, lowerdir_option
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.store.records import Merger

Format = Literal["option", "lines", "json"]
For = Literal["kernel", "fuse-overlayfs"]
Form = Annotated[
    Format,
    takes.option("--format", metavar="option|lines|json", help="How to print the directories (option)."),
]
Merged = Annotated[
    For | None,
    takes.option(
        "--for",
        metavar="kernel|fuse-overlayfs",
        help="Who merges them (default: the kernel); each needs a form of its own.",
    ),
]
_FOR_THE_KERNEL: Final = (
    "layerfs: these are for the kernel's overlayfs (--for kernel); fuse-overlayfs loses files with them: "
    "--for fuse-overlayfs"
)
"""What a user is told who cannot mount the kernel's overlayfs where they are now."""
_NEVER_LAZY: Final = (
    "lowerdir --lazy: a text keeps neither the cover of a lazy root, which belongs to one overlay, "
    "nor the mount that is asked for its files (expected --eager, or layerfs overlay --lazy always)"
)


@app.verb(epilog='Example: mount -t overlay overlay -o "$(layerfs lowerdir alpine:3.20)" /mnt')
@options.configured(*options.FETCHING)
def lowerdir(
    settings: Settings,
    reference: options.Reference,
    format_: Form = "option",
    for_: Merged = None,
    fetch: Annotated[
        bool, takes.option("--fetch/--no-fetch", help="Fetch what is missing, or say where it would be.")
    ] = True,
    lazy: Annotated[
        bool, takes.option("--lazy/--eager", help="Whole layers (--eager); --lazy says what to do instead.")
    ] = False,
) -> None:
    """Print the native lower directories of an image.

    Topmost first; the image is fetched before. They are for overlayfs of the kernel. fuse-overlayfs reads
    markers by other rules and loses files of them without a word: it needs those of --for fuse-overlayfs.

    With --no-fetch the manifest must be in the store, the directories need not be there yet. With --offline
    nothing is fetched, and a missing layer is an error.
    """
    if lazy:
        raise UsageError(_NEVER_LAZY)

    def show(paths: list[str]) -> None:
        if format_ == "json":
            print_json(paths)
        elif format_ == "lines":
            click.echo("\n".join(paths))
        else:
            click.echo(os.fsdecode(option(map(os.fsencode, paths))))

    merger: Merger = for_ if for_ == "fuse-overlayfs" else ""
    if for_ is None and format_ == "option" and os.geteuid() != 0:
        click.echo(_FOR_THE_KERNEL, err=True)
    option = fuse_lowerdir_option if merger else lowerdir_option
    use_native_stack(
        settings, reference_of(settings, reference), show, fetch=fetch, named=True, merger=merger
    )
