"""``layerfs tree``: what each layer added, changed and removed, with sizes, largest first."""

import fnmatch
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import click
import msgspec

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.opening import reference_of
from layerfs.cli.output import print_json, print_line, print_text
from layerfs.cli.terminal import cut, output_width, squeeze, width_of
from layerfs.errors import NotInStore, StoreError, UsageError
from layerfs.foreign import printable
from layerfs.layer.changes import Change, Changed, Rights, Union
from layerfs.layer.merge import marks_of
from layerfs.layer.names import to_text
from layerfs.oci import Image
from layerfs.settings import Settings
from layerfs.view.texts import command_text, human_size, number_width

if TYPE_CHECKING:
    from layerfs.oci.image import ImageLayer
    from layerfs.store import LayerDir

_SIGNS: Final[dict[Change, str]] = {"added": "+", "changed": "~", "removed": "-"}
_ONLY_RIGHTS: Final = "m"
_LIMIT: Final = 10
_ROOM: Final = 20
"""Columns that a path keeps before what stands beside it goes."""

Layer = Annotated[
    int | None, takes.option("--layer", metavar="N", least=0, help="Show this layer only, in full.")
]
Glob = Annotated[
    str | None, takes.option("--path", metavar="GLOB", help="Show entries that match; * matches / too.")
]
SetUid = Annotated[
    bool, takes.option("--setuid", help="Show files that run as their owner or group, whoever runs them.")
]
Limit = Annotated[
    int | None, takes.option("--limit", metavar="N", least=0, help="Show N entries of each layer; 0: all.")
]


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


class Choice(msgspec.Struct, frozen=True):
    """What of an image is to be shown."""

    layer: int | None
    path: str | None
    """A pattern of fnmatch."""
    setuid: bool

    @property
    def is_narrow(self) -> bool:
        """Whether not all entries are to be shown."""
        return self.path is not None or self.setuid

    def of(self, found: Sequence[LayerChanges]) -> list[LayerChanges]:
        """Return the layers to show, with the changes to show."""
        layers = [made for made in found if self.layer in (None, made.layer.number)]
        if not self.is_narrow:
            return layers
        chosen = (
            LayerChanges(made.layer, made.command, list(filter(self._takes, made.changes))) for made in layers
        )
        return [made for made in chosen if made.changes]

    def nothing(self) -> str:
        """Say what is not there."""
        told = ["nothing"]
        if self.setuid:
            told.append("is set-user-id or set-group-id")
        if self.path is not None:
            told.append(f"{'and ' if self.setuid else ''}matches --path {self.path!r} (* matches / too)")
        if self.layer is not None:
            told.append(f"in layer {self.layer}")
        return " ".join(told)

    def _takes(self, one: Changed) -> bool:
        if self.setuid and not (one.kind == "file" and one.rights.mode & (stat.S_ISUID | stat.S_ISGID)):
            return False
        return self.path is None or fnmatch.fnmatchcase(to_text(one.path), self.path.lstrip("/"))


@app.verb(epilog="Example: layerfs tree docker.io/library/alpine:3.20 --path 'etc/*'")
@options.configured(*options.FETCHING)
def tree(
    settings: Settings,
    reference: options.Reference,
    layer: Layer = None,
    path: Glob = None,
    setuid: SetUid = False,
    limit: Limit = None,
    as_json: options.Json = False,
) -> None:
    """Show what each layer added, changed and removed.

    The largest first, below the command that made the layer: + added, ~ changed, - removed, m where only mode
    or owner changed: size and time of modification are as before. Fetches the image before. Sizes are those
    of the files; a second name of a file counts nothing.

    With --path or --setuid only layers with such an entry are shown; without any the exit code is 3.
    layerfs changes is the same. To search in the files use a mount, there in the directory of the image:
    grep -r TEXT layers/*/diff/ (the directory itself has only links).
    """
    from layerfs.cli.native import have_image

    choice = Choice(layer, path, setuid)
    image, layers = have_image(settings, reference_of(settings, reference))
    if layer is not None and layer >= len(layers):
        raise UsageError(f"--layer {layer}: {reference} has {len(layers)} layers, counted from 0")
    found = _compare(image, layers)
    shown = choice.of(found)
    if as_json:
        print_json([_to_json(made) for made in shown])
    else:
        if limit is None:
            limit = _LIMIT if layer is None else 0
        for made in shown:
            _print(made, limit, number_width(len(layers)), whole=layer is not None)
        if layer is None and not choice.is_narrow:
            print_text(_total(found))
    if choice.is_narrow and not shown:
        raise NotInStore(f"{reference}: {choice.nothing()}")


changes = app.verb(
    "changes", hidden=True, epilog="Example: layerfs changes docker.io/library/alpine:3.20 --layer 0"
)(tree)


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


def _print(made: LayerChanges, limit: int, digits: int, *, whole: bool) -> None:
    width = output_width()
    click.echo(_head(made, digits, width))
    if made.command:
        cropped = (
            printable(made.command) if whole or width is None else cut(printable(made.command), width - 4)
        )
        print_text(cropped, "    ")
    shown = made.changes[:limit] if limit else made.changes
    owners = max((len(_owner(one.rights)) for one in shown), default=0)
    for one in shown:
        print_line(_row(one, owners, width))
    if len(shown) < len(made.changes):
        more = f"and {len(made.changes) - len(shown)} more (--layer {made.layer.number} shows them all)"
        print_text(more, "      ")


def _head(made: LayerChanges, digits: int, width: int | None) -> str:
    """Return the line of a layer; of forms that say less and less the first that fits."""
    sizes = {
        change: f"{sign}{human_size(made.size(change))}"
        for change, sign in _SIGNS.items()
        if made.count(change)
    }
    full = [f"{size} ({made.count(change)} {change})" for change, size in sizes.items()] or ["no changes"]
    number, digest = f"{made.layer.number:0{digits}d}", made.layer.digest.shown
    forms = ([number, digest, *full], [number, *full], [number, *sizes.values()])
    lines = ["  ".join(form) for form in forms]
    return next((line for line in lines if width is None or len(line) <= width), lines[-1])


def _row(one: Changed, owners: int, width: int | None) -> str:
    """Return the line of an entry; what was before goes first if it does not fit, then mode and owner."""
    sign = _ONLY_RIGHTS if one.only_rights else _SIGNS[one.change]
    size = f"    {sign} {human_size(one.size):>9}  "
    rights = f"{stat.filemode(one.rights.mode)}  {_owner(one.rights):<{owners}}  "
    path = printable(to_text(one.path) + ("/" if one.kind == "directory" else ""))
    was = _was(one)
    if width is None:
        return f"{size}{rights}{path}{was}"
    front = size + rights if len(size + rights) + _ROOM <= width else size
    room = width - len(front)
    if front != size and room - len(was) >= min(width_of(path), _ROOM):
        return front + squeeze(path, room - len(was)) + was
    return front + squeeze(path, room)


def _was(one: Changed) -> str:
    if one.before is None or one.before == one.rights:
        return ""
    mode, owner = stat.filemode(one.before.mode), _owner(one.before)
    parts = ([mode] if one.before.mode != one.rights.mode else []) + (
        [owner] if owner != _owner(one.rights) else []
    )
    return f" (was {' '.join(parts)})"


def _owner(rights: Rights) -> str:
    return f"{rights.uid}:{rights.gid}"


def _rights_json(rights: Rights) -> dict[str, object]:
    return {"mode": f"{stat.S_IMODE(rights.mode):04o}", "uid": rights.uid, "gid": rights.gid}


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
                "before": None if one.before is None else _rights_json(one.before),
                "only_rights": one.only_rights,
            }
            | _rights_json(one.rights)
            for one in made.changes
        ],
    }
