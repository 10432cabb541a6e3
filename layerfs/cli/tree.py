"""``layerfs tree``: what each layer added, changed and removed, with sizes, largest first."""

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.opening import reference_of
from layerfs.cli.output import print_json, print_line
from layerfs.errors import StoreError, UsageError
from layerfs.layer.changes import Change, Changed, Union
from layerfs.layer.merge import marks_of
from layerfs.layer.names import to_text
from layerfs.oci import Image
from layerfs.settings import Settings
from layerfs.view.texts import command_text, human_size, number_width

if TYPE_CHECKING:
    from layerfs.oci.image import ImageLayer
    from layerfs.store import LayerDir

_SIGNS: Final[dict[Change, str]] = {"added": "+", "changed": "~", "removed": "-"}
_LIMIT: Final = 10


class LayerChanges(msgspec.Struct, frozen=True):
    """What one layer did."""

    layer: "ImageLayer"
    command: str
    changes: Sequence[Changed]

    def count(self, change: Change) -> int:
        """Return how many entries it added, changed or removed."""
        return sum(one.change == change for one in self.changes)

    def size(self, change: Change) -> int:
        """Return the bytes of what it added or changed, or hid by removing."""
        return sum(one.size for one in self.changes if one.change == change)


@app.command(epilog="Example: layerfs tree docker.io/library/alpine:3.20 --path 'etc/*'")
@options.configured(*options.FETCHING)
def tree(
    settings: Settings,
    reference: options.Reference,
    layer: Annotated[
        int | None, typer.Option("--layer", metavar="N", min=0, help="Show this layer only, in full.")
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", metavar="GLOB", help="Show entries that match; * matches / too.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=0, help="Show N entries of each layer; 0: all.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what each layer added, changed and removed.

    The largest first, below the command that made the layer. Fetches the image before. Sizes are those of the
    files; a second name of a file counts nothing. To search in them use a mount, there in the directory of
    the image: grep -r TEXT layers/*/diff/ (the directory itself has only links).
    """
    from layerfs.cli.running import have_image

    image, layers = have_image(settings, reference_of(settings, reference))
    if layer is not None and layer >= len(layers):
        raise UsageError(f"--layer {layer}: {reference} has {len(layers)} layers, counted from 0")
    found = _compare(image, layers)
    shown = [
        LayerChanges(made.layer, made.command, _matching(made.changes, path))
        for made in found
        if layer in (None, made.layer.number)
    ]
    if as_json:
        print_json([_to_json(made) for made in shown])
        return
    if limit is None:
        limit = _LIMIT if layer is None else 0
    for made in shown:
        _print(made, limit, number_width(len(layers)))
    if layer is None and path is None:
        typer.echo(_total(found))


def _total(found: list[LayerChanges]) -> str:
    total = sum(made.size("added") + made.size("changed") for made in found)
    wasted = sum(one.replaced for made in found for one in made.changes)
    return f"{human_size(total)} in {len(found)} layers, {human_size(wasted)} of it hidden by later ones"


def _compare(image: Image, layers: "list[tuple[ImageLayer, LayerDir]]") -> list[LayerChanges]:
    from layerfs.view.walk import layer_entries

    union = Union()
    found = []
    for (layer, directory), command in zip(layers, image.commands(), strict=True):
        try:
            changes = union.apply(layer_entries(directory), marks_of(directory.tables()))
        except OSError as exc:
            raise StoreError(f"{directory.path}: {exc.strerror} (was it removed meanwhile?)") from exc
        changes.sort(key=lambda one: (-one.size, one.path))
        found.append(LayerChanges(layer, command_text(command), changes))
    return found


def _matching(changes: Sequence[Changed], glob: str | None) -> Sequence[Changed]:
    if glob is None:
        return changes
    pattern = glob.lstrip("/")
    return [one for one in changes if fnmatch.fnmatchcase(to_text(one.path), pattern)]


def _print(made: LayerChanges, limit: int, width: int) -> None:
    sums = "  ".join(
        f"{sign}{human_size(made.size(change))} ({made.count(change)} {change})"
        for change, sign in _SIGNS.items()
        if made.count(change)
    )
    typer.echo(f"{made.layer.number:0{width}d}  {made.layer.digest.shown}  {sums or 'no changes'}")
    if made.command:
        print_line(f"    {made.command}")
    shown = made.changes[:limit] if limit else made.changes
    for one in shown:
        slash = "/" if one.kind == "directory" else ""
        print_line(f"    {_SIGNS[one.change]} {human_size(one.size):>9}  {to_text(one.path)}{slash}")
    if len(shown) < len(made.changes):
        typer.echo(
            f"      and {len(made.changes) - len(shown)} more (--layer {made.layer.number} shows them all)"
        )


def _to_json(made: LayerChanges) -> dict[str, object]:
    return {
        "number": made.layer.number,
        "digest": str(made.layer.digest),
        "size": made.layer.size,
        "created_by": made.command,
        "added": {"count": made.count("added"), "size": made.size("added")},
        "changed": {"count": made.count("changed"), "size": made.size("changed")},
        "removed": {"count": made.count("removed"), "size": made.size("removed")},
        "changes": [
            {
                "path": to_text(one.path),
                "change": one.change,
                "kind": one.kind,
                "size": one.size,
                "replaced": one.replaced,
            }
            for one in made.changes
        ],
    }
