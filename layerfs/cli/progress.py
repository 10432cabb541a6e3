"""How a pull looks while it runs: what is worked on, on a terminal; elsewhere a line for each finished layer.

On standard error: standard output is for what came of it. What is drawn is gone at the end.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from layerfs.cli.frames import LayerState, Speed, frame, totals
from layerfs.cli.screen import OWN, Screen
from layerfs.fetch.progress import Journal
from layerfs.oci import Digest, Image
from layerfs.oci.image import ImageLayer
from layerfs.view.texts import human_size

_REFRESH: Final = 0.1
_PATIENCE: Final = 30.0
"""Seconds without a line, after which whoever watches a log should hear something."""


@asynccontextmanager
async def shown(
    journal: Journal, image: Image, present: frozenset[Digest], *, silent: bool, screen: Screen = OWN
) -> AsyncIterator[None]:
    """Show the work on the layers of *image* while the block runs."""
    layers = [layer for layer in image.layers if layer.digest not in present]
    if silent or not layers:
        yield
        return
    watch = Watch(journal, layers)
    if screen.canvas() is None:
        lines = _Lines(screen)
        async with _beside(lambda: lines.tell(watch)):
            yield
        lines.tell(watch)
    else:
        async with _drawn(watch, screen):
            yield


class Watch:
    """What a journal says of some layers."""

    def __init__(self, journal: Journal, layers: list[ImageLayer]) -> None:
        self._journal = journal
        self._layers = layers
        self._speeds = {layer.digest: Speed() for layer in layers}
        self._speed = Speed()
        self._done: set[Digest] = set()

    def look(self) -> tuple[list[LayerState], float | None]:
        """Return how far each layer is, and the speed of all of them."""
        now = trio.current_time()
        self._done |= self._speeds.keys() & set(self._journal.finished)
        states = [self._state(layer, now) for layer in self._layers]
        received = sum(one.layer.size if one.phase == "done" else one.received for one in states)
        return states, self._speed.measured(now, received)

    def _state(self, layer: ImageLayer, now: float) -> LayerState:
        progress = self._journal.of(layer.digest)
        if progress is None:
            return LayerState(layer, "done" if layer.digest in self._done else "queued")
        speed = self._speeds[layer.digest].measured(now, progress.received)
        return LayerState(layer, progress.phase, progress.received, speed)


class _Lines:
    """Tells of each layer when it is done, and after a long silence of all."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told: set[Digest] = set()
        self._last = trio.current_time()

    def tell(self, watch: Watch) -> None:
        states, speed = watch.look()
        for one in states:
            if one.phase == "done" and one.layer.digest not in self._told:
                self._told.add(one.layer.digest)
                label = f"{one.layer.number:02d} {one.layer.digest.shown}"
                self._write(f"{label}  {human_size(one.layer.size)}  fetched")
        if trio.current_time() - self._last >= _PATIENCE:
            self._write(totals(states, speed))

    def _write(self, line: str) -> None:
        self._last = trio.current_time()
        self._screen.complain(line)


@asynccontextmanager
async def _drawn(watch: Watch, screen: Screen) -> AsyncIterator[None]:
    unicode = screen.draws_unicode()
    with screen.drawing() as draw:

        def look() -> None:
            columns, lines = screen.canvas() or (80, 24)
            draw(frame(*watch.look(), columns, lines, unicode=unicode))

        async with _beside(look):
            yield


@asynccontextmanager
async def _beside(act: Callable[[], None]) -> AsyncIterator[None]:
    """Call *act* again and again while the block runs."""

    async def repeat() -> None:
        while True:
            act()
            await trio.sleep(_REFRESH)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat)
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised again below, not wrapped by the nursery
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
