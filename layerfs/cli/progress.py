"""How a pull looks while it runs: bars on a terminal, a line for each finished layer elsewhere.

On standard error: standard output is for what came of it.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import typer

from layerfs.fetch import Journal
from layerfs.oci import Digest, Image
from layerfs.oci.image import ImageLayer
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from rich.progress import Progress

_REFRESH = 0.1


@asynccontextmanager
async def shown(
    journal: Journal, image: Image, present: frozenset[Digest], *, silent: bool
) -> AsyncIterator[None]:
    """Show the work on the layers of *image* while the block runs."""
    layers = [layer for layer in image.layers if layer.digest not in present]
    if silent or not layers:
        yield
    elif sys.stderr.isatty():
        async with _bars(journal, layers):
            yield
    else:
        yield
        for layer in layers:
            typer.echo(f"{_label(layer)}  {human_size(layer.size)}  fetched", err=True)


@asynccontextmanager
async def _bars(journal: Journal, layers: list[ImageLayer]) -> AsyncIterator[None]:
    with _display() as display:
        tasks = {
            layer.digest: display.add_task(_label(layer), total=layer.size, phase="queued")
            for layer in layers
        }

        def refresh() -> None:
            for digest, task in tasks.items():
                if (progress := journal.of(digest)) is not None:
                    display.update(task, completed=progress.received, phase=progress.phase)
                elif display.tasks[task].fields["phase"] != "queued":
                    display.update(task, completed=display.tasks[task].total, phase="done")

        async def keep_refreshing() -> None:
            while True:
                refresh()
                await trio.sleep(_REFRESH)

        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_refreshing)
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - raised again below, not wrapped by the nursery
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        for task in tasks.values():
            display.update(task, completed=display.tasks[task].total, phase="done")


def _label(layer: ImageLayer) -> str:
    return f"{layer.number:02d} {layer.digest.shown}"


def _display() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[phase]}"),
    )
    return Progress(*columns, console=Console(stderr=True))
