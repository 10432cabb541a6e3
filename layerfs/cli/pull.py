"""``layerfs pull``: everything of an image into the store, with progress on a terminal."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.output import print_json
from layerfs.cli.sizes import human_size
from layerfs.oci import Digest, Image, ImageReference

if TYPE_CHECKING:
    from layerfs.fetch import Provider
    from layerfs.store import ImageStorage


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
def pull(
    references: Annotated[list[str], typer.Argument(metavar="REFERENCE", help="Images to fetch.")],
    store: options.Store = None,
    platform: options.PlatformOption = None,
    insecure_registry: options.InsecureRegistry = None,
    authfile: options.Authfile = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the digests only.")] = False,
    as_json: options.Json = False,
) -> None:
    """Resolve REFERENCE anew, then download, verify and extract all layers.

    Ctrl-C keeps what was downloaded; the next pull goes on behind it.
    """
    from layerfs.cli.running import with_provider

    parsed = [ImageReference.parse(text) for text in references]
    settings = options.make_settings(
        store=store, platform=platform, insecure_registries=insecure_registry, authfile=authfile
    )

    async def work(storage: "ImageStorage", provider: "Provider") -> None:
        import trio

        results = []
        for reference in parsed:
            pulled = await _pull(storage, provider, reference, silent=quiet or as_json)
            if quiet:
                typer.echo(pulled.digest)
            elif not as_json:
                _say_done(pulled)
            results.append(pulled)
        await trio.to_thread.run_sync(storage.make_durable)
        if as_json:
            print_json([_to_json(pulled) for pulled in results])

    with_provider(settings, work)


async def _pull(
    storage: "ImageStorage", provider: "Provider", reference: ImageReference, *, silent: bool
) -> Pulled:
    from layerfs.cli.progress import shown
    from layerfs.cli.running import described, image_of
    from layerfs.view.needs import StackNeed

    before = reference.tag and storage.refs.read(reference.repository, reference.tag)
    if reference.digest is not None:
        digest = reference.digest
        if reference.tag:
            storage.refs.write(reference.repository, reference.tag, digest)
    else:
        digest = await provider.documents.resolve(reference)
    moved_from = before.digest if before and before.digest != digest else None
    if not silent:
        moved = f" (moved from {moved_from})" if moved_from else ""
        typer.echo(f"{reference}: {digest}{moved}")
    image = image_of(storage, await described(storage, provider, reference, digest))
    present = frozenset(
        layer.descriptor.digest for layer in image.layers if storage.open_layer(layer.descriptor.digest)
    )
    async with shown(provider.journal, image, present, silent=silent):
        await provider.obtain(StackNeed(reference.repository, image))
    return Pulled(reference, digest, moved_from, image, present)


def _say_done(pulled: Pulled) -> None:
    fetched = [x for x in pulled.image.layers if x.descriptor.digest not in pulled.present]
    size = human_size(sum(layer.descriptor.size for layer in fetched))
    total = len(pulled.image.layers)
    typer.echo(f"{pulled.reference}: {total} layers, {len(fetched)} fetched ({size})")


def _to_json(pulled: Pulled) -> dict[str, object]:
    return {
        "reference": str(pulled.reference),
        "digest": str(pulled.digest),
        "moved_from": str(pulled.moved_from) if pulled.moved_from else None,
        "layers": [
            {
                "digest": str(layer.descriptor.digest),
                "size": layer.descriptor.size,
                "fetched": layer.descriptor.digest not in pulled.present,
            }
            for layer in pulled.image.layers
        ],
    }
