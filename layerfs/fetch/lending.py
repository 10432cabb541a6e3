"""Who gets an extractor, and from whom one is taken back: two pure functions, and `Lending` that obeys.

Extractors are few, and registries are strangers. So an extractor is lent when bytes are there, to whoever
has waited longest among those whose registries hold the fewest; all registries of one site count together.
It is taken back from a download that starves it while somebody else could use it. What is taken back is
extracted anew once its blob is whole.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import trio

from layerfs.fetch.progress import Progress

WORTH: Final = 1 << 20
"""Bytes of a growing blob from which on an extractor is worth lending."""

PACE: Final = 1 << 20
"""Bytes a second below which a download starves its extractor."""

LOOK: Final = 0.2
"""Seconds between looks at how downloads go, while somebody waits."""


class Claim(msgspec.Struct, eq=False):
    """Somebody's wish for an extractor, and then the loan."""

    progress: Progress
    granted: trio.Event = msgspec.field(default_factory=trio.Event)
    recalled: trio.Event = msgspec.field(default_factory=trio.Event)
    _received: int = -1
    _fast: bool = True

    def look(self) -> None:
        """Take note of how many bytes came since the last look."""
        received = self.progress.received
        self._fast = self._received < 0 or received - self._received >= PACE * LOOK
        self._received = received

    @property
    def starves(self) -> bool:
        """Whether fewer bytes came lately than an extractor is worth."""
        return not self.progress.is_whole and not self._fast


def next_to_get(
    waiting: Sequence[Claim], holding: Iterable[Claim], site: Callable[[str], str]
) -> Claim | None:
    """Return the claim to be granted next, of those *waiting*, longest first; None if nobody waits.

    *site* says where a registry is.
    """
    held = Counter(site(claim.progress.source) for claim in holding)
    return min(waiting, key=lambda claim: held[site(claim.progress.source)], default=None)


def to_recall(waiting: Iterable[Claim], holding: Iterable[Claim]) -> Claim | None:
    """Return the loan to take back; None while none starves, or nobody waits who would do better."""
    if all(claim.starves for claim in waiting):
        return None
    return next((claim for claim in holding if claim.starves and not claim.recalled.is_set()), None)


class Lending:
    """*count* extractors, lent to claims; *site* says where a registry is. For the tasks of one loop."""

    def __init__(self, count: int, site: Callable[[str], str]) -> None:
        self._count = count
        self._site = site
        self._waiting: list[Claim] = []
        self._holding: list[Claim] = []
        self._looked = float("-inf")

    async def take(self, claim: Claim) -> None:
        """Wait for the turn of *claim*; `give_back` ends it, also after a cancellation of this."""
        self._waiting.append(claim)
        self._grant()
        try:
            while not claim.granted.is_set():
                with trio.move_on_after(LOOK):
                    await claim.granted.wait()
                self._look()
        except BaseException:
            self.give_back(claim)
            raise

    def give_back(self, claim: Claim) -> None:
        """End the loan, or the wait."""
        for claims in (self._waiting, self._holding):
            if claim in claims:
                claims.remove(claim)
        self._grant()

    def _grant(self) -> None:
        while len(self._holding) < self._count:
            claim = next_to_get(self._waiting, self._holding, self._site)
            if claim is None:
                return
            self._waiting.remove(claim)
            self._holding.append(claim)
            claim.granted.set()

    def _look(self) -> None:
        """Judge the loans, once each period however many wait: the first of them does it."""
        if not self._waiting or not self._is_time():
            return
        for claim in (*self._waiting, *self._holding):
            claim.look()
        recalled = to_recall(self._waiting, self._holding)
        if recalled is not None:
            recalled.recalled.set()

    def _is_time(self) -> bool:
        now = trio.current_time()
        if now - self._looked < LOOK * 0.9:
            return False
        self._looked = now
        return True
