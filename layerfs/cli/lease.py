"""``layerfs lease``: what programs need of the store, and until when."""

from typing import TYPE_CHECKING, Annotated

import click

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.helping import Verbs
from layerfs.cli.opening import open_store
from layerfs.cli.output import print_json, print_table
from layerfs.oci import Digest
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.store.leases import Lease

lease_app = Verbs(
    "lease",
    help="List and end leases: what programs need of the store, until when.",
    epilog="A program takes one by Store.lease (docs/embedding.md); it ends with its process or time.",
    no_args_is_help=True,
)
app.add_command(lease_app)


@lease_app.verb("ls", epilog="Example: layerfs lease ls --json")
@options.configured(*options.STORE)
def list_(settings: Settings, as_json: options.Json = False) -> None:
    """List the leases that hold: name, digests, until when, for which process."""
    found = open_store(settings, make=False).leases.holding()
    if as_json:
        print_json([_as_json(name, lease) for name, lease in found])
    else:
        rows = [_cells(name, lease) for name, lease in found]
        print_table(("NAME", "DIGESTS", "UNTIL", "PROCESS"), rows, spare=("DIGESTS", "PROCESS", "UNTIL"))


@lease_app.verb("rm", epilog="Example: layerfs lease rm build-7 || layerfs lease ls")
@options.configured(*options.STORE)
def remove(
    settings: Settings, names: Annotated[list[str], takes.argument(metavar="NAME", help="Leases to end.")]
) -> None:
    """End leases. What they kept stays until layerfs gc."""
    leases = open_store(settings, make=False).leases
    for name in names:
        leases.end(name)
        click.echo(f"removed {name}")


def _as_json(name: str, lease: "Lease") -> dict[str, object]:
    return {
        "name": name,
        "digests": list(lease.digests),
        "made_at": lease.made_at,
        "until": lease.until,
        "pid": lease.holder.pid if lease.holder else None,
    }


def _cells(name: str, lease: "Lease") -> list[str]:
    first = Digest.parse(lease.digests[0]).shown if lease.digests else "-"
    more = len(lease.digests) - 1
    return [
        name,
        f"{first} and {more} more" if more > 0 else first,
        lease.until.astimezone().isoformat(" ", "seconds") if lease.until else "-",
        str(lease.holder.pid) if lease.holder else "-",
    ]
