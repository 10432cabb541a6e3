"""Which piece of a blob is asked for next, of several requests at a time, and how far its front is. Pure.

Whoever reads the blob does so from the front: so the pieces are asked for in order, and none that is far
ahead of the first that is missing.
"""

from layerfs.store.pieces import Pieces


class Window:
    """The pieces of a blob that are wanted now: the missing ones of *width* from the front on."""

    def __init__(self, pieces: Pieces, front: int, width: int) -> None:
        self._pieces = pieces
        self._front = pieces.front(front)
        self._width = width
        self._taken: set[int] = set()
        self._arrived: dict[int, int] = {}
        """Before which byte all is here, of pieces that are not complete."""
        self._note(front)

    @property
    def front(self) -> int:
        """The first byte that is missing."""
        return self._front

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return self._front == self._pieces.size

    def take(self) -> tuple[int, int, int] | None:
        """Return a piece that nobody has taken, and its missing bytes; None if there is none."""
        first = self._front // self._pieces.piece
        for number in range(first, min(first + self._width, self._pieces.count)):
            if number not in self._taken and number not in self._pieces.here:
                self._taken.add(number)
                return number, self.start(number), self._pieces.end(number)
        return None

    def start(self, number: int) -> int:
        """Return the first byte that is missing of a piece."""
        return self._arrived.get(number, self._pieces.start(number))

    def has_all(self, number: int) -> bool:
        """Say whether all bytes of a piece have arrived."""
        return self.start(number) >= self._pieces.end(number)

    def arrived(self, number: int, until: int) -> None:
        """Take note that a piece is here up to before byte *until*."""
        self._arrived[number] = max(until, self.start(number))
        self._advance()

    def give_back(self, number: int) -> None:
        """Let another request have what is missing of a piece, if anything is."""
        self._taken.discard(number)
        self._advance()

    def _note(self, front: int) -> None:
        number = front // self._pieces.piece
        if front > self._pieces.start(number):
            self._arrived[number] = front

    def _advance(self) -> None:
        while not self.is_complete:
            number = self._front // self._pieces.piece
            here = number in self._pieces.here
            reached = self._pieces.end(number) if here else max(self._front, self.start(number))
            if reached == self._front:
                return
            self._front = reached
