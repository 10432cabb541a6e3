"""``layerfs images``: what the store knows. It contacts no registry."""

from typing import Annotated

import typer

from layerfs.catalog.documents import DocumentReader
from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.opening import open_store
from layerfs.cli.output import print_json, print_table
from layerfs.errors import LayerfsError
from layerfs.gc.collect import Collector
from layerfs.gc.plan import Users
from layerfs.needs import DocumentNeed
from layerfs.oci import Digest, Image, Repository, stack_digest
from layerfs.settings import Settings
from layerfs.store import ImageStorage
from layerfs.store.records import MERGERS
from layerfs.view.texts import human_size

_SHORT_HEX = 12
_HEADER = ("REFERENCE", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "FETCHED", "CREATED", "IN USE")


@app.command(epilog="Example: layerfs images --json | jq -r '.[].reference'")
@options.configured(*options.STORE, "platform")
def images(
    settings: Settings,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the references only.")] = False,
    as_json: options.Json = False,
) -> None:
    """List the images that the store knows; in use are those that a mount or a lease needs."""
    storage = open_store(settings, make=False)
    if quiet:
        for name, _ in storage.refs.all():
            typer.echo(name)
        return
    reader = DocumentReader(storage, settings.preferred_platform)
    users = Collector(storage, counts=lambda _: False).users()
    rows = [
        {"reference": str(name), "digest": str(entry.digest), "resolved": entry.resolved_at}
        | _details(storage, reader, users, name.repository, entry.digest)
        for name, entry in storage.refs.all()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(_HEADER, [_cells(row) for row in rows])


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
        "platform": str(image.config.platform),
        "layers": len(blobs),
        "size": sum(blobs.values()),
        "fetched": sum(storage.open_layer(blob) is not None for blob in blobs),
        "created": image.config.created,
        "in_use": _uses(image, users),
    }


def _uses(image: Image, users: Users) -> list[str]:
    """Say which leases need all of an image, and which mount uses its cover or its topmost layer.

    The layers below may be another image's as well.
    """
    layers = [layer.digest for layer in image.layers]
    leases = [root.name for root in users.roots if root.digests.issuperset(layers)]
    tops = (*(stack_digest(layers, merger) for merger in MERGERS), *layers[-1:])
    mounts = (users.usage.use_of(digest) for digest in tops)
    return [*leases, *dict.fromkeys(str(mount) for mount in mounts if mount is not None)]


def _cells(row: dict[str, object]) -> list[str]:
    size = row.get("size")
    return [
        str(row["reference"]),
        str(row["digest"])[: len("sha256:") + _SHORT_HEX],
        "artifact" if "artifact" in row else str(row.get("platform", "-")),
        str(row.get("layers", "-")),
        human_size(size) if isinstance(size, int) else "-",
        f"{row['fetched']}/{row['layers']}" if "fetched" in row else "-",
        str(row.get("created") or "-")[:10],
        "yes" if row.get("in_use") else "-",
    ]
