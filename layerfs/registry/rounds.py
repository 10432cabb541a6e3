"""What the first of several servers gives that has it: who is next, and what to say if none does.

A round lasts as long as its call: a server that has said for good that it has nothing is not asked again.
"""

from collections.abc import Iterator

import msgspec

from layerfs.errors import LayerfsError, NotFound
from layerfs.registry.attempts import NoAnswer
from layerfs.registry.mirrors.endpoints import Endpoint


class Round(msgspec.Struct):
    """The servers to ask for one call, in order, and what each has answered."""

    endpoints: tuple[Endpoint, ...]
    _failed: dict[Endpoint, NoAnswer] = msgspec.field(default_factory=dict)
    _left_alone: dict[Endpoint, float] = msgspec.field(default_factory=dict)

    def to_ask(self) -> Iterator[Endpoint]:
        """Yield who is to be asked this time, as answers come; at least one."""
        waiting = [one for one in self.endpoints if one not in self._failed or self._failed[one].may_pass]
        self._left_alone.clear()
        yield from waiting or self.endpoints[-1:]

    def has_others(self, endpoint: Endpoint) -> bool:
        """Say whether somebody comes after *endpoint*."""
        return endpoint != self.endpoints[-1]

    def failed(self, endpoint: Endpoint, answer: NoAnswer) -> None:
        """Take note of an answer that is none."""
        self._failed[endpoint] = answer

    def left_alone(self, endpoint: Endpoint, seconds: float) -> None:
        """Take note that a server is not asked now."""
        self._left_alone[endpoint] = seconds

    @property
    def result(self) -> NoAnswer:
        """What all of them together have answered.

        The registry's own word counts most; of mirrors alone one that may have it, but does not say so now.
        """
        chosen = self._failed.get(self.endpoints[-1])
        others = [self._failed[one] for one in self.endpoints if one in self._failed]
        if chosen is None or (self.endpoints[-1].kind == "mirror" and isinstance(chosen.error, NotFound)):
            chosen = next((one for one in others if not isinstance(one.error, NotFound)), others[-1])
        if len(self.endpoints) == 1:
            return chosen
        chosen.error.asked = tuple(self._lines())
        return chosen

    def _lines(self) -> Iterator[str]:
        for endpoint in self.endpoints:
            if endpoint in self._failed:
                yield f"{endpoint.name}: {_said(self._failed[endpoint])}"
            elif endpoint in self._left_alone:
                yield f"{endpoint.name}: not asked, left alone for {self._left_alone[endpoint]:.0f} s more"


def _said(answer: NoAnswer) -> str:
    return answer.said or _without_subject(answer.error)


def _without_subject(error: LayerfsError) -> str:
    """Return what an error says behind the name of what was asked for."""
    text = error.text
    return text.partition(": ")[2] or text
