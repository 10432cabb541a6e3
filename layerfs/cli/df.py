"""``layerfs df``: what the store takes, how much of it images share, use, and do not need any more."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.output import print_json, print_table
from layerfs.oci import Digest
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from layerfs.catalog.inventory import Held, Inventory
    from layerfs.gc.jobs import Survey
    from layerfs.store.stock import Stored, StoredKind

Json = dict[str, Any]
_COLUMNS: Final = ("count", "size", "shared", "in_use", "reclaimable")


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
    found = seen.inventory
    totals = _totals(seen) | {
        name: _total(stock.values(), reclaimable=seen.leftovers.rows()[name].values())
        for name, stock in (
            ("leftovers", found.leftovers),
            ("scratches", found.scratches),
            ("local", found.bundles),
        )
    }
    totals["other"] = dict.fromkeys(_COLUMNS, 0) | {"size": found.other}
    totals["total"] = {column: sum(total[column] for total in totals.values()) for column in _COLUMNS}
    images = [_image(str(reference), needed, found) for reference, needed in found.images.items()]
    if as_json:
        print_json({"store": str(settings.store)} | totals | {"images": images})
        return
    print_table(
        ("WHAT", *(column.upper().replace("_", " ") for column in _COLUMNS)),
        [_row(what, total) for what, total in totals.items()],
        spare=("COUNT", "SHARED", "IN USE"),
    )
    if verbose:
        click.echo()
        _print_images(images)


def _print_images(images: list[Json]) -> None:
    columns = ("blobs", "extracted", "shared", "own")
    print_table(
        ("REFERENCE", *map(str.upper, columns)),
        [[image["reference"], *(human_size(image[column]) for column in columns)] for image in images],
        spare=("BLOBS", "EXTRACTED", "SHARED"),
    )


_ROWS: "Final[Mapping[str, tuple[StoredKind, ...]]]" = {
    "blobs": ("blob",),
    "extracted": ("layer",),
    "covers": ("cover",),
    "skeletons": ("skeleton", "toc"),
    "documents": ("manifest", "config"),
}


def _totals(seen: "Survey") -> dict[str, Json]:
    found, users = seen.inventory, seen.users
    leased = frozenset[Digest]().union(*(root.digests for root in users.roots if root.leased))

    def total(kinds: "tuple[StoredKind, ...]") -> Json:
        things = {what: held for what, held in found.things.items() if what.kind in kinds}

        def of(chosen: "Callable[[Stored], bool]") -> "list[Held]":
            return [held for what, held in things.items() if chosen(what)]

        return _total(
            things.values(),
            shared=of(lambda what: found.users[what.digest] > 1),
            in_use=of(lambda what: what.digest in leased or users.mounted(what)),
            reclaimable=of(seen.plan.going.__contains__),
        )

    objects = _total(found.objects.values(), reclaimable=seen.objects.values())
    return {name: total(kinds) for name, kinds in _ROWS.items()} | {"objects": objects}


def _total(
    stock: "Iterable[Held]",
    shared: "Iterable[Held]" = (),
    in_use: "Iterable[Held]" = (),
    reclaimable: "Iterable[Held]" = (),
) -> Json:
    held = list(stock)
    parts = {"size": held, "shared": shared, "in_use": in_use, "reclaimable": reclaimable}
    return {"count": len(held)} | {name: sum(one.size for one in part) for name, part in parts.items()}


def _image(reference: str, needed: frozenset[Digest], found: "Inventory") -> Json:
    things = {what: held.size for what, held in found.things.items() if what.digest in needed}
    shared = sum(size for what, size in things.items() if found.users[what.digest] > 1)
    return {
        "reference": reference,
        "blobs": sum(size for what, size in things.items() if what.kind == "blob"),
        "extracted": sum(size for what, size in things.items() if what.kind == "layer"),
        "shared": shared,
        "own": sum(things.values()) - shared,
    }


def _row(what: str, total: Json) -> list[str]:
    return [what, str(total["count"]), *(human_size(total[column]) for column in _COLUMNS[1:])]
