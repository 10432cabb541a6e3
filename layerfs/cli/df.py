"""``layerfs df``: what the store takes, how much of it images share, use, and do not need any more."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.output import print_json, print_table
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.gc.survey import ImageSize, Total

_COLUMNS: Final = ("count", "size", "shared", "in_use", "reclaimable")
_IMAGE_COLUMNS: Final = ("blobs", "extracted", "shared", "own")


@app.verb(epilog="Example: layerfs df --verbose")
@options.configured(*options.STORE)
def df(
    settings: Settings,
    verbose: Annotated[
        bool, takes.option("--verbose", "-v", help="List each image: its size, shared and its own.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show what the store takes of the disk, as du(1) counts it.

    Shared is what more than one image needs; in use what a mount or a lease does; reclaimable what layerfs gc
    would remove: what none of them needs. Skeletons list the files of lazy layers, objects are such files.
    Scratches is what was written to overlays (--rw), local what layerfs mount SOURCE keeps.
    """
    from layerfs.cli.opening import open_store
    from layerfs.gc.jobs import survey

    seen = survey(open_store(settings, make=False))
    totals, images = seen.totals(), seen.images()
    if as_json:
        sums = {
            what: {column: getattr(total, column) for column in _COLUMNS} for what, total in totals.items()
        }
        print_json({"store": str(settings.store)} | sums | {"images": list(map(_as_json, images))})
        return
    print_table(
        ("WHAT", *(column.upper().replace("_", " ") for column in _COLUMNS)),
        [_row(what, total) for what, total in totals.items()],
        spare=("COUNT", "SHARED", "IN USE"),
    )
    if verbose:
        click.echo()
        _print_images(images)


def _print_images(images: "list[ImageSize]") -> None:
    print_table(
        ("REFERENCE", *map(str.upper, _IMAGE_COLUMNS)),
        [
            [str(image.reference), *(human_size(getattr(image, column)) for column in _IMAGE_COLUMNS)]
            for image in images
        ],
        spare=("BLOBS", "EXTRACTED", "SHARED"),
    )


def _as_json(image: "ImageSize") -> dict[str, Any]:
    return {"reference": str(image.reference)} | {column: getattr(image, column) for column in _IMAGE_COLUMNS}


def _row(what: str, total: "Total") -> list[str]:
    return [what, str(total.count), *(human_size(getattr(total, column)) for column in _COLUMNS[1:])]
