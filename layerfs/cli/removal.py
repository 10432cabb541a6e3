"""``layerfs rm`` and ``layerfs gc``: what nobody needs leaves the store. They contact no registry."""

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from layerfs import naming
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.opening import open_store
from layerfs.cli.output import print_json, print_line, print_table
from layerfs.errors import UsageError
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from layerfs.catalog.inventory import Held
    from layerfs.gc.jobs import Outcome
    from layerfs.gc.plan import Kept
    from layerfs.store.stock import Stored

Json = dict[str, Any]
DryRun = Annotated[bool, takes.option("--dry-run", "-n", help="Say what would go, and remove nothing.")]
Force = Annotated[
    bool,
    takes.option("--force", "-f", help="Go on where not all mounts can be seen; what is seen in use stays."),
]
_ROWS: Final = {"manifest": "documents", "config": "documents"}


@app.verb(epilog="Example: layerfs rm alpine:3.20 && layerfs df")
@options.configured(*options.STORE)
def rm(
    settings: Settings,
    references: Annotated[
        list[str] | None,
        takes.argument(
            metavar="IMAGE", help="Tags, digests or image ids.", shell_complete=complete_reference
        ),
    ] = None,
    every: Annotated[bool, takes.option("--all", "-a", help="Remove every image.")] = False,
    dry_run: DryRun = False,
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Remove images: their names, and all that nothing else needs.

    Layers that another image, a lease or a mount needs stay, and it is said for whom. A digest or an image id
    (12 digits or more) stands for all names of the image.
    """
    from layerfs.catalog.names import named_images
    from layerfs.gc.jobs import remove_images

    if bool(references) == every:
        raise UsageError("rm: name images, or say --all (expected one of the two)")
    storage = open_store(settings, make=False)
    parse = naming.parser(settings)
    found = (one for text in references or () for one in named_images(storage, text, parse))
    chosen = dict(storage.refs.all() if every else found)
    done = remove_images(storage, chosen, force=force, dry_run=dry_run)
    if as_json:
        print_json({"images": [str(name) for name in chosen], "dry_run": dry_run} | _as_json(done))
        return
    for name in chosen:
        click.echo(f"{'would remove' if dry_run else 'removed'} {name}")
    click.echo(f"{'would free' if dry_run else 'freed'} {human_size(done.freed)}{_counted(done.removed)}")
    _print_kept(done.kept)


@app.verb(epilog="Example: layerfs gc --older-than 7d --dry-run")
@options.configured(*options.STORE)
def gc(
    settings: Settings,
    older_than: Annotated[
        str, takes.option("--older-than", metavar="AGE", help="Spare what was used since, as 30m, 12h or 7d.")
    ] = "0",
    dry_run: DryRun = False,
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Remove from the store what nothing needs.

    No name, no lease, no mount and nobody's work needs it. Beside layers, covers, blobs and documents that is
    what killed processes left, downloads that nobody will resume, what was written to overlays (--rw) that
    are mounted no more, and what layerfs mount SOURCE kept.
    """
    from layerfs.gc.jobs import collect_garbage

    storage = open_store(settings, make=False)
    done = collect_garbage(storage, older_than=_seconds(older_than), force=force, dry_run=dry_run)
    rest = done.leftovers.rows()
    rows = _rows(done.removed) | {what: list(held.values()) for what, held in rest.items()}
    if done.objects:
        rows["objects"] = list(done.objects.values())
    total = sum(one.size for row in rows.values() for one in row)
    if as_json:
        sums = {what: {"count": len(row), "size": sum(one.size for one in row)} for what, row in rows.items()}
        about = {"dry_run": dry_run, "freed": total, "rows": sums}
        print_json(_as_json(done) | about | {"paths": [str(path) for row in rest.values() for path in row]})
        return
    _print_rows(rows, total)
    _print_kept(one for one in done.kept if one.used)
    for path, reason in done.leftovers.kept.items():
        print_line(f"stays {path}: {reason}")


def _print_rows(rows: "Mapping[str, list[Held]]", total: int) -> None:
    lines = [(what, str(len(row)), human_size(sum(one.size for one in row))) for what, row in rows.items()]
    lines.append(("total", str(sum(map(len, rows.values()))), human_size(total)))
    print_table(("WHAT", "COUNT", "SIZE"), lines)


def _rows(removed: "Mapping[Stored, Held]") -> "dict[str, list[Held]]":
    rows: dict[str, list[Held]] = {"layers": [], "covers": [], "blobs": [], "documents": []}
    for what, held in removed.items():
        rows.setdefault(_ROWS.get(what.kind, f"{what.kind}s"), []).append(held)
    return rows


def _counted(removed: "Mapping[Stored, Held]") -> str:
    rows = _rows(removed).items()
    counts = [f"{len(row)} {what if len(row) > 1 else what[:-1]}" for what, row in rows if row]
    return f" ({', '.join(counts)})" if counts else ""


def _print_kept(kept: "Iterable[Kept]") -> None:
    """Print what stays, a line for all that stays for the same reasons."""
    stays: dict[tuple[str, ...], list[Kept]] = defaultdict(list)
    for one in kept:
        stays[one.reasons].append(one)
    for reasons, things in stays.items():
        size = human_size(sum(one.held.size for one in things))
        counts = _counted({one.what: one.held for one in things})
        print_line(f"stays {size}{counts}: {', '.join(reasons)}")


def _as_json(done: "Outcome") -> Json:
    def about(what: "Stored", held: "Held") -> Json:
        return {"kind": what.kind, "digest": str(what.digest), "size": held.size}

    return {
        "freed": done.freed,
        "removed": [about(what, held) for what, held in done.removed.items()],
        "kept": [about(one.what, one.held) | {"for": list(one.reasons)} for one in done.kept],
    }


def _seconds(text: str) -> float:
    """Read an age. Raises UsageError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    if not (number.isascii() and number.isdecimal()):
        raise UsageError(f"--older-than: {text!r} (expected a number with s, m, h, d or w behind it)")
    return float(int(number) * units[unit])
