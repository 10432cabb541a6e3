"""``layerfs pull``: everything of an image into the store, with progress on a terminal."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.output import print_json
from layerfs.oci import Digest, Image, ImageReference
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.cli.running import Machinery


@dataclass(frozen=True, slots=True)
class Pulled:
    """What one pull did."""

    reference: ImageReference
    digest: Digest
    moved_from: Digest | None
    """What the tag was pinned to before, if that was something else."""
    image: Image
    present: frozenset[Digest]
    """Layers that were in the store already."""


@app.command(epilog="Example: layerfs pull docker.io/library/alpine:3.20 && layerfs images")
@options.configured(*options.FILLING)
def pull(
    settings: Settings,
    references: Annotated[
        list[str],
        typer.Argument(metavar="REFERENCE", help="Images to fetch.", autocompletion=complete_reference),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the digests only.")] = False,
    as_json: options.Json = False,
) -> None:
    """Resolve REFERENCE anew, then download, verify and extract all layers.

    With a digest the image is kept by its digest; a tag beside it names what it named before.

    Ctrl-C keeps what was downloaded; the next pull goes on behind it.
    """
    from layerfs.cli.running import made_durable, with_provider

    parsed = [ImageReference.parse(text) for text in references]

    async def work(machinery: "Machinery") -> None:
        results = []
        async with made_durable(machinery.storage):
            for reference in parsed:
                results.append(await _pull(machinery, reference, silent=quiet or as_json))
                if quiet:
                    typer.echo(results[-1].digest)
                elif not as_json:
                    typer.echo(_summary(results[-1]))
        if as_json:
            print_json([_to_json(pulled) for pulled in results])

    with_provider(settings, work)


async def _pull(machinery: "Machinery", reference: ImageReference, *, silent: bool) -> Pulled:
    import trio

    from layerfs.cli.progress import shown
    from layerfs.cli.running import fetch_stack, image_of, kept_whole, manifest_of

    storage = machinery.storage
    before = storage.refs.read(reference)
    target = reference.target
    digest = target if isinstance(target, Digest) else await machinery.provider.resolve(target)
    moved_from = before.digest if before and before.digest != digest else None
    if not silent:
        moved = f" (moved from {moved_from})" if moved_from else ""
        typer.echo(f"{reference}: {digest}{moved}")
    with kept_whole(storage, digest):
        manifest = await manifest_of(machinery, reference, digest)
        if reference.digest:  # what a tag means only the registry says, and it was not asked
            storage.refs.keep(reference.repository, digest)
        image = image_of(machinery, manifest)
        blobs = {layer.digest for layer in image.layers}
        present = frozenset(blob for blob in blobs if storage.open_layer(blob) is not None)
        sizes = {layer.digest: layer.size for layer in image.layers if layer.digest not in present}
        missing = sum(sizes.values())
        await trio.to_thread.run_sync(machinery.keeper.require_room, str(reference), missing)
        async with shown(machinery.provider.journal, image, present, silent=silent):
            await fetch_stack(machinery, reference, image)
    return Pulled(reference, digest, moved_from, image, present)


def _summary(pulled: Pulled) -> str:
    fetched = [x for x in pulled.image.layers if x.digest not in pulled.present]
    size = human_size(sum(layer.size for layer in fetched))
    return f"{pulled.reference}: {len(pulled.image.layers)} layers, {len(fetched)} fetched ({size})"


def _to_json(pulled: Pulled) -> dict[str, object]:
    return {
        "reference": str(pulled.reference),
        "digest": str(pulled.digest),
        "moved_from": str(pulled.moved_from) if pulled.moved_from else None,
        "layers": [
            {
                "digest": str(layer.digest),
                "size": layer.size,
                "fetched": layer.digest not in pulled.present,
            }
            for layer in pulled.image.layers
        ],
    }
