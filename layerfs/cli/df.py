"""``layerfs df``: how much the store holds, how much of it images share, and what nothing needs."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.output import print_json, print_table
from layerfs.oci import Digest
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.catalog.inventory import Inventory

Json = dict[str, Any]


@app.command(epilog="Example: layerfs df --verbose")
@options.configured(*options.STORE)
def df(
    settings: Settings,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List each image: its size, shared and its own.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show the sizes in the store: compressed blobs, extracted layers, covers, documents, scratch, leftovers.

    Shared is what more than one reference needs; reclaimable what none needs and no mount uses. Sizes of
    extracted layers are those of their files, those of covers and scratch what they take of the disk. A cover
    belongs on top of the layers of one image and is made anew when it is needed; scratch is what was written
    through layerfs overlay --rw. Local is what layerfs mount SOURCE keeps below local/ of the
    store; what is not mounted there may be removed.
    """
    from layerfs.catalog.inventory import take_inventory
    from layerfs.cli.opening import open_store

    storage = open_store(settings, make=False)
    found = take_inventory(storage)
    used = storage.usage()
    totals = _totals(found, used.uses)
    images = [_image(str(reference), needed, found) for reference, needed in found.images.items()]
    if as_json:
        print_json({"store": str(settings.store)} | totals | {"images": images})
        return
    print_table(
        ("WHAT", "COUNT", "SIZE", "SHARED", "RECLAIMABLE"),
        [_row(what, total) for what, total in totals.items()],
    )
    if verbose:
        typer.echo()
        _print_images(images)


def _print_images(images: list[Json]) -> None:
    columns = ("blobs", "extracted", "shared", "own")
    print_table(
        ("REFERENCE", *map(str.upper, columns)),
        [[image["reference"], *(human_size(image[column]) for column in columns)] for image in images],
    )


def _totals(found: "Inventory", in_use: Callable[[Digest], bool]) -> dict[str, Json]:
    users = found.users

    def total(sizes: Mapping[Digest, int]) -> Json:
        shared = [size for digest, size in sizes.items() if users[digest] > 1]
        free = [size for digest, size in sizes.items() if not users[digest] and not in_use(digest)]
        return {
            "count": len(sizes),
            "size": sum(sizes.values()),
            "shared": sum(shared),
            "reclaimable": sum(free),
        }

    unused = (size for scratch, size in found.scratches.items() if not scratch.is_used)
    return {
        "blobs": total(found.blobs),
        "extracted": total(found.trees),
        "covers": total(found.covers),
        "documents": total(found.documents),
        "scratch": _unshared(found.scratches, sum(unused)),
        "leftovers": _unshared(found.leftovers, sum(found.leftovers.values())),
        "local": _unshared(found.bundles, 0),
    }


def _unshared(sizes: Mapping[Any, int], reclaimable: int) -> Json:
    return {"count": len(sizes), "size": sum(sizes.values()), "shared": 0, "reclaimable": reclaimable}


def _image(reference: str, needed: frozenset[Digest], found: "Inventory") -> Json:
    sizes = [
        (digest, stock[digest])
        for stock in (found.blobs, found.trees, found.documents)
        for digest in needed
        if digest in stock
    ]
    shared = sum(size for digest, size in sizes if found.users[digest] > 1)
    return {
        "reference": reference,
        "blobs": sum(found.blobs.get(digest, 0) for digest in needed),
        "extracted": sum(found.trees.get(digest, 0) for digest in needed),
        "shared": shared,
        "own": sum(size for _, size in sizes) - shared,
    }


def _row(what: str, total: Json) -> list[str]:
    return [
        what,
        str(total["count"]),
        human_size(total["size"]),
        human_size(total["shared"]),
        human_size(total["reclaimable"]),
    ]
