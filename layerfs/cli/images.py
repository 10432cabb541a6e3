"""``layerfs images``: what the store knows. It contacts no registry."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Literal

import click

from layerfs.catalog.documents import DocumentReader, ImageDocuments
from layerfs.catalog.names import matching_refs
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.opening import open_store
from layerfs.cli.output import print_json, print_table
from layerfs.errors import LayerfsError, UsageError
from layerfs.gc.collect import Collector
from layerfs.gc.plan import Users
from layerfs.needs import DocumentNeed
from layerfs.oci import (
    Digest,
    Image,
    ImageReference,
    Index,
    Manifest,
    Repository,
    documents_below,
    stack_digest,
)
from layerfs.oci.image import LayerKey
from layerfs.settings import Settings
from layerfs.store import ImageStorage, RefEntry
from layerfs.store.records import MERGERS
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

    In use are those that a mount or a lease needs. An image that was fetched for several platforms has a row
    for each; --platform chooses one.
    """
    storage = open_store(settings, make=False)
    refs = _chosen(storage, [*([name] if name else []), *map(_pattern, filters or ())])
    if quiet:
        for reference in refs:
            click.echo(reference)
        return
    reader = DocumentReader(storage, settings.preferred_platform)
    users = Collector(storage, counts=None).users()
    rows = [
        {"reference": str(reference), "digest": str(entry.digest), "resolved": entry.resolved_at}
        | _details(storage, reader, users, reference.repository, digest)
        for reference, entry in refs.items()
        for digest in ([entry.digest] if settings.platform else _platforms(reader, reference, entry.digest))
    ]
    if as_json or form == "json":
        print_json(rows)
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


def _platforms(reader: DocumentReader, reference: ImageReference, digest: Digest) -> list[Digest]:
    """Return the images below a document that the store has documents of; the document itself if none."""

    def load(each: Digest) -> Manifest | Index | None:
        try:
            return reader.document(each)
        except LayerfsError:
            return None

    def found() -> Iterator[Digest]:
        for document in documents_below(digest, load):
            if isinstance(document, Manifest) and document.is_image:
                with contextlib.suppress(LayerfsError):
                    if isinstance(reader.read(reference.repository, document.digest), ImageDocuments):
                        yield document.digest

    return list(found()) or [digest]


def _details(
    storage: ImageStorage, reader: DocumentReader, users: Users, repository: Repository, digest: Digest
) -> dict[str, object]:
    """Return what the store knows of an image beyond its tag; nothing if it has no documents of it."""
    try:
        found = reader.read(repository, digest)
    except LayerfsError:  # a document is damaged
        return {}
    if isinstance(found, DocumentNeed):  # only the tag is known
        return {}
    if found.image is None:
        manifest = found.manifest
        return {} if manifest is None or manifest.is_image else {"artifact": manifest.kind}
    image = found.image
    blobs = {layer.digest: layer.size for layer in image.layers}
    return {
        "manifest": str(image.manifest.digest),
        "platform": str(image.config.platform),
        "layers": len(blobs),
        "size": sum(blobs.values()),
        "fetched": sum(storage.open_layer(blob) is not None for blob in blobs),
        "lazy": len({layer.digest for layer in image.layers if _is_listed(storage, layer.key)}),
        "created": image.config.created,
        "in_use": _uses(image, users),
    }


def _is_listed(storage: ImageStorage, key: LayerKey) -> bool:
    """Say whether the files of a layer are listed that is not whole."""
    listed = key.toc is not None and storage.lazy.open_skeleton_of(key.toc, key.digest) is not None
    return listed and storage.open_layer(key.digest) is None


def _uses(image: Image, users: Users) -> list[str]:
    """Say which leases need all of an image, and which mount uses its cover or its topmost layer.

    The layers below may be another image's as well.
    """
    layers = [layer.digest for layer in image.layers]
    leases = [root.name for root in users.roots if root.digests.issuperset(layers)]
    tops = (*(stack_digest(layers, merger) for merger in MERGERS), *layers[-1:])
    mounts = (users.usage.use_of(digest) for digest in tops)
    return [*leases, *dict.fromkeys(str(mount) for mount in mounts if mount is not None)]


def _cells(row: dict[str, object], *, whole: bool) -> list[str]:
    size = row.get("size")
    return [
        str(row["reference"]),
        str(row["digest"]) if whole else Digest.parse(str(row["digest"])).shown,
        "artifact" if "artifact" in row else str(row.get("platform", "-")),
        str(row.get("layers", "-")),
        human_size(size) if isinstance(size, int) else "-",
        f"{row['fetched']}/{row['layers']}" if "fetched" in row else "-",
        str(row.get("created") or "-")[:10],
        "yes" if row.get("in_use") else "-",
    ]
