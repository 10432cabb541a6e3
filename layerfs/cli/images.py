"""``layerfs images``: what the store knows. It contacts no registry."""

from typing import Annotated, Literal

import click

from layerfs.catalog.names import matching_refs
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.opening import open_store
from layerfs.cli.output import print_json, print_table
from layerfs.errors import UsageError
from layerfs.gc.listing import StoredImage, list_images
from layerfs.oci import ImageReference
from layerfs.settings import Settings
from layerfs.store import ImageStorage, RefEntry
from layerfs.view.texts import human_size

_HEADER = ("REFERENCE", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "FETCHED", "CREATED", "IN USE")
_SPARE = ("LAYERS", "CREATED", "PLATFORM", "IN USE", "DIGEST", "FETCHED")
"""What a narrow terminal does without, the first first."""

Name = Annotated[
    str | None,
    takes.argument(
        metavar="NAME",
        help="Only images of this name, or of its end (alpine), with or without a tag, * for anything.",
        shell_complete=complete_reference,
    ),
]
Filters = Annotated[
    list[str] | None,
    takes.option("--filter", "-f", metavar="reference=NAME", help="As NAME; several narrow it down."),
]


@app.verb(epilog="Example: layerfs images alpine --json | jq -r '.[].reference'")
@options.configured(*options.STORE, "platform")
def images(
    settings: Settings,
    name: Name = None,
    filters: Filters = None,
    quiet: Annotated[bool, takes.option("--quiet", "-q", help="Print the references only.")] = False,
    whole: Annotated[bool, takes.option("--no-trunc", "--digests", help="Print whole digests.")] = False,
    form: Annotated[
        Literal["table", "json"],
        takes.option("--format", metavar="table|json", help="How to print them; json is --json."),
    ] = "table",
    as_json: options.Json = False,
) -> None:
    """List the images of the store.

    Fetched says how many of its layers are here, and of how many others the files are listed and come when
    they are opened. In use are those that a mount or a lease needs. An image that was fetched for several
    platforms has a row for each; --platform chooses one.
    """
    storage = open_store(settings, make=False)
    refs = _chosen(storage, [*([name] if name else []), *map(_pattern, filters or ())])
    if quiet:
        for reference in refs:
            click.echo(reference)
        return
    rows = list_images(storage, refs, settings.preferred_platform, one=settings.platform is not None)
    if as_json or form == "json":
        print_json([_as_json(row) for row in rows])
    else:
        print_table(_HEADER, [_cells(row, whole=whole) for row in rows], spare=_SPARE, whole=whole)


def _pattern(text: str) -> str:
    """Read the value of --filter. Raises UsageError."""
    key, equals, value = text.partition("=")
    if key != "reference" or not equals:
        raise UsageError(f"--filter {text!r} (expected reference=NAME)")
    return value


def _chosen(storage: ImageStorage, patterns: list[str]) -> dict[ImageReference, RefEntry]:
    refs = dict(storage.refs.all())
    for pattern in patterns:
        found = dict(matching_refs(storage, pattern))
        refs = {name: entry for name, entry in refs.items() if name in found}
    return refs


def _as_json(row: StoredImage) -> dict[str, object]:
    named = {"reference": str(row.reference), "digest": str(row.digest), "resolved": row.resolved_at}
    content = row.content
    if content is None:
        return named | ({} if row.artifact is None else {"artifact": row.artifact})
    return named | {
        "manifest": str(content.manifest),
        "platform": str(content.platform),
        "layers": content.layers,
        "size": content.size,
        "fetched": content.fetched,
        "lazy": content.lazy,
        "created": content.created,
        "in_use": list(content.in_use),
    }


def _cells(row: StoredImage, *, whole: bool) -> list[str]:
    named = [str(row.reference), str(row.digest) if whole else row.digest.shown]
    content = row.content
    if content is None:
        return [*named, "-" if row.artifact is None else "artifact", *("-" * 5)]
    return [
        *named,
        str(content.platform),
        str(content.layers),
        human_size(content.size),
        f"{content.fetched}/{content.layers}" + (f" +{content.lazy} lazy" if content.lazy else ""),
        str(content.created or "-")[:10],
        "yes" if content.in_use else "-",
    ]
