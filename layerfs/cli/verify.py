"""``layerfs verify``: says whether the store is what was put into it, and makes it so again."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from layerfs import naming
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.interrupts import undoing
from layerfs.cli.opening import open_store
from layerfs.cli.output import print_json, print_line
from layerfs.errors import UsageError, VerificationError
from layerfs.settings import Settings
from layerfs.settings.kinds import AMOUNT
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery
    from layerfs.catalog.verification import Fetch, Finding, Report, Tell
    from layerfs.needs import Need
    from layerfs.oci import ImageReference
    from layerfs.store import ImageStorage, RefEntry
    from layerfs.store.checking import How


GoOn = Callable[[], object]
_CREDIT_SECONDS: Final = 10.0
"""How long somebody may make up for, who was slower than the rate."""
_SLEEP_SECONDS: Final = 0.2
"""How long a signal waits for the work to notice."""

Images = Annotated[
    list[str] | None,
    takes.argument(metavar="IMAGE", help="Tags, digests or image ids.", shell_complete=complete_reference),
]
Every = Annotated[bool, takes.option("--all", "-a", help="Check all that is in the store.")]
Quick = Annotated[bool, takes.option("--quick", help="Check sizes, records, documents; read no layer.")]
Repair = Annotated[bool, takes.option("--repair", help="Make anew what is wrong.")]
Resume = Annotated[bool, takes.option("--resume", help="Skip what an interrupted run found right.")]
Rate = Annotated[
    str, takes.option("--limit-rate", metavar="BYTES", help="Read so much a second, as 50MB, on average.")
]
Force = Annotated[
    bool,
    takes.option("--force", "-f", help="Repair where not all mounts can be seen; what is seen in use stays."),
]


@app.verb(epilog="Example: layerfs verify --all --limit-rate 50MB || layerfs verify --all --repair")
@options.configured(*options.FETCHING)
def verify(
    settings: Settings,
    references: Images = None,
    every: Every = False,
    quick: Quick = False,
    repair: Repair = False,
    resume: Resume = False,
    limit_rate: Rate = "",
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Check what is in the store, and repair it.

    Blobs and documents are checked against their digests, layers against their blobs, covers against layers,
    lazy ones against their TOCs. Each layer is extracted once more and compared: type, mode, owner, size,
    times, attributes, hard links and content of each entry. Exits with 6 if something is wrong. --repair has
    layers and covers made from what is here, the rest fetched; what a mount uses stays, and is said to.
    """
    from layerfs.host.priority import give_way
    from layerfs.store.checking import How

    if bool(references) == every:
        raise UsageError("verify: name images, or say --all (expected one of the two)")
    how = How(quick=quick, repair=repair, force=force)
    rate = _rate(limit_rate)
    give_way()

    def check(storage: "ImageStorage", fetch: "Fetch | None", go_on: "GoOn") -> "Report":
        chosen = None if every else _chosen(settings, storage, references or [])
        return _check(storage, chosen, how, _Pace(rate, go_on), fetch, resume)

    report = _with_registry(settings, check) if repair else _without(settings, check)
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report)
    if report.wrong:
        total = len(report.findings) + len(report.records)
        advice = "see above why it stays so" if repair else "layerfs verify --repair makes it anew"
        raise VerificationError(f"{report.wrong} of {total} things are wrong; {advice}")


def _chosen(
    settings: Settings, storage: "ImageStorage", references: list[str]
) -> "Mapping[ImageReference, RefEntry]":
    from layerfs.catalog.names import named_images

    parse = naming.parser(settings)
    return dict(one for text in references for one in named_images(storage, text, parse))


def _check(
    storage: "ImageStorage",
    chosen: "Mapping[ImageReference, RefEntry] | None",
    how: "How",
    pace: "_Pace",
    fetch: "Fetch | None",
    resume: bool,
) -> "Report":
    from layerfs.catalog.verification import Verification

    work = Verification(storage, how, spent=pace.spent, fetch=fetch, resume=resume)
    with storage, _shown() as tell:
        return work.run(chosen, tell)


def _rate(text: str) -> int | None:
    """Read a rate; None for no limit. Raises UsageError, InvalidSettings."""
    if not text:
        return None
    rate: int = AMOUNT.of_option(text, "--limit-rate").bytes
    if rate < 1:
        raise UsageError(f"--limit-rate: {text!r} (expected bytes a second, as 50MB)")
    return rate


def _without(settings: Settings, check: "Callable[[ImageStorage, None, GoOn], Report]") -> "Report":
    """Run *check* with nobody who fetches."""
    storage = open_store(settings, make=False)
    with undoing():
        return check(storage, None, lambda: None)


def _with_registry(settings: Settings, check: "Callable[[ImageStorage, Fetch, GoOn], Report]") -> "Report":
    """Run *check* in a thread, with what fetches for it, and what raises if a signal ends the work."""
    import trio

    from layerfs.cli.running import with_provider

    open_store(settings, make=False)

    async def work(machinery: "Machinery") -> "Report":
        def fetch(need: "Need") -> None:
            trio.from_thread.run(machinery.provider.obtain, need)

        return await trio.to_thread.run_sync(
            check, machinery.storage, fetch, trio.from_thread.check_cancelled
        )

    return with_provider(settings, work)


class _Pace:
    """Has bytes read at a rate: who is early waits. Calls *go_on* often, which may raise."""

    def __init__(self, rate: int | None, go_on: "GoOn") -> None:
        self._rate = rate
        self._go_on = go_on
        self._due = time.monotonic()

    def spent(self, count: int) -> None:
        """Wait until *count* bytes more may have been read."""
        self._go_on()
        if self._rate is None:
            return
        self._due = max(self._due, time.monotonic() - _CREDIT_SECONDS) + count / self._rate
        while (left := self._due - time.monotonic()) > 0:
            time.sleep(min(left, _SLEEP_SECONDS))
            self._go_on()


@contextmanager
def _shown() -> "Iterator[Tell]":
    """Show on a terminal how far the work has come; on stderr, what is found goes elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _found, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("verify", total=None)

        def tell(found: "Finding", done: int, total: int) -> None:
            about = f"{found.what.kind} {found.what.digest.hex[:12]}"
            display.update(task, description=about, completed=done, total=total)

        yield tell


def _print(report: "Report") -> None:
    for found in report.findings:
        checked = found.checked
        about = f"{checked.verdict} {found.what.kind} {found.what.digest}"
        users = f" ({', '.join(found.images)})" if found.images else ""
        for problem in checked.problems:
            print_line(f"{about}: {problem}{users}")
        if checked.note and checked.problems:
            print_line(f"  {checked.note}")
        elif checked.note:
            print_line(f"{about}: {checked.note}{users}")
    for path, problem in report.records.items():
        print_line(f"wrong record {path}: {problem}")
    for path, held in report.leftovers.items():
        print_line(f"leftover {path} ({human_size(held.size)}; layerfs gc takes what nobody resumes)")
    counts = [f"{report.count(verdict)} {verdict}" for verdict in ("right", "repaired", "unchecked")]
    resumed = f", {report.resumed} found right before" if report.resumed else ""
    click.echo(f"{', '.join(counts)}, {report.wrong} wrong{resumed}")


def _as_json(report: "Report") -> dict[str, Any]:
    def about(found: "Finding") -> dict[str, Any]:
        checked = found.checked
        return {
            "kind": found.what.kind,
            "digest": str(found.what.digest),
            "verdict": checked.verdict,
            "problems": list(checked.problems),
            "note": checked.note,
            "images": list(found.images),
        }

    return {
        **{verdict: report.count(verdict) for verdict in ("right", "repaired", "unchecked")},
        "wrong": report.wrong,
        "resumed": report.resumed,
        "things": [about(found) for found in report.findings if found.checked.verdict != "right"],
        "records": {str(path): problem for path, problem in report.records.items()},
        "leftovers": {str(path): held.size for path, held in report.leftovers.items()},
    }
