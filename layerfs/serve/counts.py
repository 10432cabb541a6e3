"""What a server has answered, and who may read it. Counts; the text is another's (`layerfs.serving`).

Metrics name no image, but say how busy a node is: that is for who keeps it. A process of the same machine may
be a proxy, which has passed a stranger on.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from layerfs.serve.replies import METRICS, Answer
from layerfs.settings import Audience

_PASSED_ON: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})
_KEPT_SECONDS: Final = 1.0
"""How long one text is given to all who ask: many cost what one does."""


async def _nothing(_: "ServerCounts") -> bytes:
    await trio.lowlevel.checkpoint()
    return b""


class ServerCounts:
    """The counts of one server, since it began."""

    def __init__(
        self, audience: Audience = "off", text: Callable[["ServerCounts"], Awaitable[bytes]] = _nothing
    ) -> None:
        self._audience = audience
        self._text = text
        self._kept = b""
        self._kept_until = float("-inf")
        self._making = trio.Lock()
        self.answers: Counter[tuple[str, int]] = Counter()
        """By kind of what was asked for, and status."""
        self.sent = 0
        """Bytes of bodies of answers that were taken to their end."""
        self.connections = 0
        """Those that are open."""
        self.refused = 0
        """Connections that were one too many."""

    def answered(self, kind: str, status: int, size: int) -> None:
        """Count an answer."""
        self.answers[kind, status] += 1
        self.sent += size

    def may_read(self, headers: Mapping[str, str], *, here: bool) -> bool:
        """Say whether metrics are for who asks with *headers*, from this machine if *here*."""
        if self._audience == "local":
            return here and not _PASSED_ON & headers.keys()
        return self._audience == "all"

    async def read(self) -> Answer:
        """Return the metrics. Raises Refused."""
        async with self._making:
            if trio.current_time() >= self._kept_until:
                self._kept = await self._text(self)
                self._kept_until = trio.current_time() + _KEPT_SECONDS
            return Answer(200, (("Content-Type", METRICS), ("Cache-Control", "no-store")), self._kept)
