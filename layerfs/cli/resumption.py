"""What a command has to know of a pull that a daemon began, to go on as if it had begun itself."""

from collections.abc import Callable, Iterable

import msgspec

from layerfs.cli.screen import OWN, OwnScreen
from layerfs.oci import Digest


class Begun(msgspec.Struct, frozen=True):
    """How it stood before an image was pulled."""

    number: int
    """Which one it is, of those that were asked for."""
    before: Digest | None
    """What its tag was pinned to."""
    digest: Digest | None = None
    """What it is; None if nobody knows yet."""
    present: frozenset[Digest] = frozenset()
    """Layers that were in the store."""


class Earlier:
    """How it stood before each image; who begins one tells *tell*, and it is remembered."""

    def __init__(self, known: Iterable[Begun] = (), tell: Callable[[Begun], None] = lambda _: None) -> None:
        self._known = {one.number: one for one in known}
        self._tell = tell

    def begun(self, number: int, before: Digest | None) -> Begun:
        """Return how it stood, which is as now if nobody has begun with it."""
        return self._known.get(number) or self._remember(Begun(number, before))

    def found(self, begun: Begun, digest: Digest, present: frozenset[Digest]) -> frozenset[Digest]:
        """Return which layers of *digest* were there when it was begun: *present* if it begins now."""
        if begun.digest != digest:
            begun = self._remember(Begun(begun.number, begun.before, digest, present))
        return begun.present

    def _remember(self, begun: Begun) -> Begun:
        self._known[begun.number] = begun
        self._tell(begun)
        return begun


class Heard(msgspec.Struct):
    """What a daemon said before it went: notes for the verb, and what was written already."""

    notes: list[bytes] = msgspec.field(default_factory=list)
    output: list[str] = msgspec.field(default_factory=list)
    complaints: list[str] = msgspec.field(default_factory=list)


class Resumed(OwnScreen):
    """The streams of this process, to which a daemon has had some written: that is not written again."""

    def __init__(self, heard: Heard) -> None:
        self._output = heard.output
        self._complaints = heard.complaints

    def say(self, text: str) -> None:
        """Write *text* unless it was. Raises OutputLost."""
        if text in self._output:
            self._output.remove(text)
        else:
            super().say(text)

    def complain(self, text: str) -> None:
        """Write *text* unless it was."""
        if text in self._complaints:
            self._complaints.remove(text)
        else:
            super().complain(text)


def resumed(heard: Heard | None) -> tuple[OwnScreen, Earlier]:
    """Return what goes on with what was *heard*; begins anew if that is None."""
    if heard is None:
        return OWN, Earlier()
    return Resumed(heard), Earlier(msgspec.json.decode(note, type=Begun) for note in heard.notes)
