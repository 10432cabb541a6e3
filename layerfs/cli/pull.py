"""``layerfs pull``: everything of an image into the store, with progress on a terminal."""

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.failures import exit_code, report
from layerfs.cli.output import print_json
from layerfs.errors import LayerfsError, OutputLost, UsageError
from layerfs.oci import Digest, Image, ImageReference
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.cli.running import Machinery

Form = Literal["lines", "digests", "json"]
"""What standard output gets."""


class Pulled(msgspec.Struct, frozen=True):
    """What one pull did."""

    reference: ImageReference
    digest: Digest
    moved_from: Digest | None
    """What the tag was pinned to before, if that was something else."""
    image: Image
    present: frozenset[Digest]
    """Layers that were in the store already."""

    def summary(self) -> str:
        """Return the line for people."""
        fetched = [layer for layer in self.image.layers if layer.digest not in self.present]
        size = human_size(sum(layer.size for layer in fetched))
        return f"{self.reference}: {len(self.image.layers)} layers, {len(fetched)} fetched ({size})"

    def to_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        return {
            "reference": str(self.reference),
            "digest": str(self.digest),
            "moved_from": str(self.moved_from) if self.moved_from else None,
            "layers": [
                {
                    "digest": str(layer.digest),
                    "size": layer.size,
                    "fetched": layer.digest not in self.present,
                }
                for layer in self.image.layers
            ],
        }


class NotPulled(msgspec.Struct, frozen=True):
    """What kept one pull from its end."""

    reference: str
    """As it was given: it may be none."""
    error: LayerfsError

    def to_json(self) -> dict[str, object]:
        """Return what ``--json`` prints, with the words of ``status.json``."""
        return {
            "reference": self.reference,
            "error": type(self.error).__name__,
            "message": str(self.error),
        }


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
    """Download, verify and extract all layers of images.

    The registry is asked anew what a tag names. With a digest the image is kept by its digest; a tag beside
    it names what it named before.

    Where one of several cannot be had, the others are fetched, and the exit code is that of the first error.
    With --json each has a result; that of an error has error and message, as in layerfs status. Progress is
    on standard error.

    Ctrl-C keeps what was downloaded; the next pull goes on behind it.
    """
    from layerfs.cli.running import made_durable, with_provider

    if quiet and as_json:
        raise UsageError("pull: --quiet and --json (expected one of the two)")
    form: Form = "json" if as_json else "digests" if quiet else "lines"

    async def work(machinery: "Machinery") -> list[Pulled | NotPulled]:
        async with made_durable(machinery.storage):
            results = [await _pull_or_tell(machinery, text, form) for text in references]
        if as_json:
            print_json([one.to_json() for one in results])
        return results

    failed = [one for one in with_provider(settings, work) if isinstance(one, NotPulled)]
    if failed:
        raise typer.Exit(exit_code(failed[0].error))


async def _pull_or_tell(machinery: "Machinery", text: str, form: Form) -> Pulled | NotPulled:
    """Pull one image and print what came of it."""
    try:
        pulled = await _pull(machinery, ImageReference.parse(text), form)
    except OutputLost:  # nobody would hear of the others
        raise
    except LayerfsError as error:
        report(error)
        return NotPulled(text, error)
    if form == "digests":
        typer.echo(pulled.digest)
    elif form == "lines":
        typer.echo(pulled.summary())
    return pulled


async def _pull(machinery: "Machinery", reference: ImageReference, form: Form) -> Pulled:
    import trio

    from layerfs.cli.progress import shown
    from layerfs.cli.running import fetch_stack, image_of, kept_whole, manifest_of

    storage, silent = machinery.storage, form == "digests"
    before = storage.refs.read(reference)
    target = reference.target
    digest = target if isinstance(target, Digest) else await machinery.provider.resolve(target)
    moved_from = before.digest if before and before.digest != digest else None
    if form == "lines":
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
