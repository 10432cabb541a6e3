"""Lazy layers that somebody looks at become whole behind them, one after another, when nobody waits.

Of those that a container uses all files become objects as well: then it needs nobody any more.

Decides when, and asks the fetcher for whole layers as anybody does: so what it does is joined by others, goes
on where it stopped, and asks for no bytes that came for a file already.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal

import trio

from layerfs.errors import LayerfsError
from layerfs.needs import FileNeed, LayersNeed, TocNeed

if TYPE_CHECKING:
    from layerfs.oci import Digest

When = Literal["never", "idle", "always"]
"""When layers are completed: idle is once nobody has waited for `IDLE_SECONDS`."""
IDLE_SECONDS: Final = 2.0
"""How long nobody must have waited."""
_LOOK: Final = 0.25
"""Seconds between two looks whether somebody waits."""
_AGAIN_SECONDS: Final = 30.0
"""Seconds after which what containers wait for is tried again."""
_QUEUE_MAX: Final = 10_000
"""Layers that may be left to be completed; who looks at more of them later has them queued again."""

log = logging.getLogger(__name__)


class Completer:
    """*complete* has layers whole, with all that their users need; *waiting* says how many callers wait."""

    def __init__(
        self, complete: Callable[[LayersNeed], Awaitable[None]], waiting: Callable[[], int], when: When
    ) -> None:
        self._complete = complete
        self._waiting = waiting
        self._when = when
        self._urgent: list[tuple[LayersNeed, bool]] = []
        """What comes first, and whether containers wait for it: then it is tried again if it fails."""
        self._hurried: set[Digest] = set()
        """What is among them, or was, because it is read through: once is enough."""
        self._queue: dict[Digest, LayersNeed] = {}
        self._queued = trio.Event()
        self._hurrying = trio.Event()

    def looked_at(self, need: TocNeed | FileNeed, *, at_once: bool = False) -> None:
        """Take in that somebody looks at layers that may be lazy; *at_once*, that they are read through."""
        numbers = need.numbers if isinstance(need, TocNeed) else (need.number,)
        for number in numbers:
            if len(self._queue) < _QUEUE_MAX:
                layer = need.image.layers[number]
                self._queue.setdefault(layer.digest, LayersNeed(need.repository, need.image, (number,)))
        if at_once and self._when != "never":
            self._hurry(LayersNeed(need.repository, need.image, numbers))
        self._queued.set()

    def in_use(self, needs: Iterable[LayersNeed]) -> None:
        """Take in layers that containers use whose daemon has gone: they come first, whoever waits."""
        self._urgent += [(need, True) for need in needs]
        self._hurrying.set()
        self._queued.set()

    def _hurry(self, need: LayersNeed) -> None:
        """Have one layer whole, and then the others of its image that somebody looked at, all at once."""
        layers, (number,) = need.image.layers, need.numbers
        if layers[number].digest in self._hurried:
            return
        self._urgent.append((need, False))
        self._hurrying.set()
        self._hurried.add(layers[number].digest)
        others = tuple(
            layer.number
            for layer in layers
            if layer.digest in self._queue and layer.digest not in self._hurried
        )
        if others:
            self._urgent.append((LayersNeed(need.repository, need.image, others), False))
            self._hurried.update(layers[one].digest for one in others)

    async def run(self) -> None:
        """Complete layers until cancelled."""
        while True:
            if not self._urgent and (not self._queue or self._when == "never"):
                self._queued = trio.Event()
                await self._queued.wait()
                continue
            if not self._urgent:
                self._hurrying = trio.Event()
                await self._until_idle()
            if self._urgent:
                need, is_used = self._urgent.pop(0)
            else:
                need, is_used = self._queue.pop(next(iter(self._queue))), False
            try:
                await self._complete(need)
            except LayerfsError as exc:
                log.info("%s: not completed: %s", need.repository, exc)
                # Whoever looks at it again has it queued again.
                self._hurried.difference_update(need.image.layers[number].digest for number in need.numbers)
                if is_used:
                    self._urgent.append((need, True))
                    await trio.sleep(_AGAIN_SECONDS)

    async def _until_idle(self) -> None:
        """Wait until nobody has waited for some seconds, or something is urgent."""
        since = trio.current_time()
        while self._when == "idle" and trio.current_time() - since < IDLE_SECONDS and not self._urgent:
            with trio.move_on_after(_LOOK):
                await self._hurrying.wait()
            if self._waiting():
                since = trio.current_time()
