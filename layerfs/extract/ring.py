"""The ring: uncompressed bytes on their way from the inflating process to its forked writer.

Moves slots of shared memory. A slot holds whole blocks of 512 bytes and is always filled full but for the
last, so no header straddles two. Beside it two pipes: *words* to the writer (how much is in the next slot, or
how the stream ended), *answers* back (one byte for each slot that may be filled again; after the end of the
stream any number of parts, then one result). Must know no archive format. `Feeder` is the inflating side,
called by `pipeline`; `RingSource` the writer's, the `layerfs.layer.member.Source` of the tar reader.
"""

import mmap
import os
import select
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from layerfs.errors import InvalidArchive
from layerfs.layer.budgets import Budgets
from layerfs.processes import frames

BLOCK: Final = 512
SLOT_SIZE: Final = 512 * 1024
SLOTS: Final = 24
"""12 MiB: with 16 the inflating side waits for a writer of small files sooner, with 64 hardly later."""

_WORD: Final = struct.Struct("<I")
_END: Final = 0
_ABORTED: Final = 0xFFFFFFFF
_CREDIT: Final = b"c"
_PART: Final = b"p"
_RESULT: Final = b"r"


class Aborted(Exception):
    """The stream ended in failure: what was written is rubbish."""


class PartnerDied(Exception):
    """The process on the other side of the ring is gone."""


class Ring(msgspec.Struct, frozen=True):
    """The shared memory and the four ends of the two pipes; made before the fork."""

    memory: mmap.mmap
    words_in: int
    words_out: int
    answers_in: int
    answers_out: int

    @classmethod
    def make(cls) -> "Ring":
        """Map the memory and open the pipes."""
        words_in, words_out = os.pipe()
        answers_in, answers_out = os.pipe()
        return cls(mmap.mmap(-1, SLOTS * SLOT_SIZE), words_in, words_out, answers_in, answers_out)


class Feeder:
    """The inflating side: hands out slots to fill, publishes them, collects the writer's result."""

    def __init__(self, ring: Ring) -> None:
        self._view = memoryview(ring.memory)
        self._words = ring.words_out
        self._answers = ring.answers_in
        self._heard = select.poll()
        self._heard.register(self._answers, select.POLLIN)
        self._published = 0
        self._credits = 0
        self._result: bytes | None = None

    def start(self, job: bytes) -> None:
        """Give the writer its next job."""
        self._published = self._credits = 0
        self._result = None
        frames.send(self._words, job)

    def slot(self) -> memoryview:
        """Return the next slot, once the writer has read what was in it. Raises PartnerDied."""
        self.listen()
        while self._published - self._credits >= SLOTS and self._result is None:
            self._read_answers()
        start = self._published % SLOTS * SLOT_SIZE
        return self._view[start : start + SLOT_SIZE]

    @property
    def published(self) -> int:
        """How many slots of this job were published."""
        return self._published

    @property
    def writer_failed(self) -> bool:
        """Whether the writer has answered already, which before the end of the stream means failure."""
        return self._result is not None

    def listen(self) -> bool:
        """Take what the writer has said, without waiting; return whether it failed. Raises PartnerDied."""
        while self._result is None and self._heard.poll(0):
            self._read_answers()
        return self.writer_failed

    def publish(self, size: int) -> None:
        """Let the writer have the first *size* bytes of the slot."""
        self._published += 1
        self._send(size)

    def finish(self, relay: Callable[[bytes], None], *, aborted: bool = False) -> bytes:
        """End the stream, *relay* the parts of the writer's answer, return the result. Raises PartnerDied."""
        self._send(_ABORTED if aborted else _END)
        while self._result is None:
            part = self._read_answers()
            if part is not None:
                relay(part)
        return self._result

    def _send(self, word: int) -> None:
        try:
            frames.write_all(self._words, _WORD.pack(word))
        except BrokenPipeError:
            raise PartnerDied from None

    def _read_answers(self) -> bytes | None:
        """Take one thing that the writer says; return it if it is a part of its answer."""
        kind = os.read(self._answers, 1)
        if kind == _CREDIT:
            self._credits += 1
            return None
        body = frames.receive(self._answers) if kind else None
        if body is None:
            raise PartnerDied
        if kind == _PART:
            return body
        self._result = body
        return None


class RingSource:
    """The writer's side: an archive read forwards, straight from the shared memory.

    Raises Aborted when the inflating side gives up, PartnerDied when it is gone.
    """

    def __init__(self, ring: Ring) -> None:
        self._memory = ring.memory
        self._view = memoryview(ring.memory)
        self._words = ring.words_in
        self._answers = ring.answers_out
        self._slot = SLOTS - 1
        self._position = self._end = 0
        self._ended = False
        self._credit_due = False
        self._answered = False
        self.budgets = Budgets()
        """What the job allows; a process reads one archive, so that all its time is the archive's."""

    def next_job(self) -> bytes | None:
        """Wait for a job; None when there will be no more."""
        self._slot = SLOTS - 1
        self._position = self._end = 0
        self._ended = self._credit_due = self._answered = False
        return frames.receive(self._words)

    def block(self) -> bytes:
        """Return the next 512 bytes, nothing at the end. Raises InvalidArchive for a part of a block."""
        start = self._position
        after = start + BLOCK
        if after > self._end:
            return self._next_block()
        self._position = after
        return self._memory[start:after]

    def _next_block(self) -> bytes:
        """Return the first block of the next slot."""
        if self._position != self._end:
            raise self._truncated()
        return self.block() if self._advance() else b""

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes and pass over their padding."""
        start = self._position
        after = start + (size + 511 & -BLOCK)
        if after <= self._end:
            self._position = after
            return self._memory[start : start + size]
        parts = []
        left = size
        while left:
            part = self._part(left)
            parts.append(bytes(part))
            left -= len(part)
        self.pad(size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def copy(self, size: int, fd: int) -> None:
        """Write the next *size* bytes to *fd* and pass over their padding."""
        start = self._position
        after = start + (size + 511 & -BLOCK)
        if after <= self._end:
            self._position = after
            written = os.write(fd, self._view[start : start + size])
            if written != size:
                frames.write_all(fd, self._view[start + written : start + size])
        else:
            self.copy_piece(size, fd)
            self.pad(size)

    def copy_piece(self, size: int, fd: int) -> None:
        """Write the next *size* bytes to *fd*, without padding: after the last piece, `pad` follows."""
        while size:
            part = self._part(size)
            size -= len(part)
            _write(fd, part)

    def skip(self, size: int) -> None:
        """Pass over *size* bytes and their padding."""
        left = size
        while left:
            left -= len(self._part(left))
        self.pad(size)

    def pad(self, size: int) -> None:
        """Pass over the padding that follows *size* bytes of content, if there is any.

        The last block of an archive may lack it, as for Go and GNU tar; any other ends in its slot.
        """
        self._position = min(self._position + -size % BLOCK, self._end)

    def drain(self) -> None:
        """Pass over all that is left, whatever it is."""
        while self._advance():
            pass

    def leave(self) -> None:
        """Pass over all that is left, and over the end itself, after a failure of the writer's own."""
        with suppress(Aborted):
            self.drain()

    def part(self, body: bytes) -> None:
        """Give a part of the answer, once the stream has ended. Raises PartnerDied."""
        self._say(_PART, body)

    def answer(self, body: bytes) -> None:
        """Give the result of the job; slots are no longer returned after it. Raises PartnerDied."""
        self._answered = True
        self._say(_RESULT, body)

    def _say(self, kind: bytes, body: bytes) -> None:
        """Write one message; after a part of one nothing else can be said: the feeder waits for its rest."""
        try:
            frames.write_all(self._answers, kind)
            frames.send(self._answers, body)
        except OSError as exc:
            raise PartnerDied from exc

    def _part(self, most: int) -> memoryview:
        """Return the next bytes that lie in one piece, at most *most*."""
        start = self._position
        if start == self._end:
            if not self._advance():
                raise self._truncated()
            start = self._position
        self._position = after = min(start + most, self._end)
        return self._view[start:after]

    def _advance(self) -> bool:
        """Return the slot to the feeder and take the next; False at the end of the stream."""
        if self._ended:
            return False
        if self._credit_due and not self._answered:
            os.write(self._answers, _CREDIT)
        word = frames.read_exactly(self._words, _WORD.size)
        if word is None:
            raise PartnerDied
        (size,) = _WORD.unpack(word)
        if size in (_END, _ABORTED):
            self._ended = True
            self._position = self._end = 0
            if size == _ABORTED:
                raise Aborted
            return False
        if not self._answered and time.process_time() > self.budgets.max_cpu_seconds:
            raise self.budgets.cpu_exceeded("writing the tree")
        self._credit_due = True
        self._slot = (self._slot + 1) % SLOTS
        self._position = self._slot * SLOT_SIZE
        self._end = self._position + size
        return True

    def _truncated(self) -> InvalidArchive:
        self._position = self._end
        return InvalidArchive("the archive is truncated (expected more bytes, as its last header says)")


def _write(fd: int, data: memoryview) -> None:
    if (written := os.write(fd, data)) != len(data):
        frames.write_all(fd, data[written:])
